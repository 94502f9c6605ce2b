"""The dependencies of testing functions: installed from wheels alone, so that no code of theirs runs by it.

A set of requirements is resolved once per Python and platform, and published to the artifact store as one archive,
beside it the versions and hashes of the wheels that are in it. From then on every machine unpacks those very files,
whatever is released later; newer ones are had by asking for them, which makes another set.
"""

import asyncio
import json
import os
import platform
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from packaging.requirements import Requirement

from emissary.errors import InvalidInput, Unavailable
from emissary.settings import settings
from emissary.store.artifacts import artifact_store, sealed_notes

INSTALL_SECONDS = 120.0
MAX_BYTES = 512 * 2**20
MAX_PACKAGES = 64
UNUSED_SECONDS = 3600.0
"""So long a set is kept for a function that is about to be added."""
_ARCHIVE, _LOCK = "packages.tar.gz", "requirements.lock"
_SHOWN_LINES = 5
_POLL_SECONDS = 0.2
_PIP = [sys.executable, "-I", str(Path(__file__).with_name("pip_alone.py"))]


async def installed(requirements: Sequence[str]) -> Path:
    """A folder with the packages of `requirements` and what they need, to be put on Python's path.

    Requirements are as pip takes them, without addresses. Raises InvalidInput with pip's words where they cannot be
    installed from wheels, or are more than 64 packages or 512 MiB with what they need, and Unavailable when it takes
    longer than two minutes.
    """
    wanted = _set_of(requirements)
    digest = sealed_notes([wanted, platform.python_implementation(), sys.version_info[:2], sysconfig.get_platform()])
    cache = settings().home / "packages"
    folder = cache / digest
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".draft-", ignore_cleanup_errors=True) as draft:
            await _fetch(wanted, f"packages/{digest}", Path(draft), folder)
    return folder


def clear_unused(used: Iterable[Sequence[str]]) -> None:
    """Remove the sets that are none of `used`, lists of requirements, an hour after they were published, and what this
    machine has unpacked of sets that are gone. Those that an earlier version published stay.
    """
    store, names = artifact_store(), {json.dumps(_set_of(requirements)) for requirements in used}
    for key in store.keys("packages"):
        manifest = store.manifest(key)
        notes = {} if manifest is None else manifest.notes
        if notes.get("requirements") not in (None, *names) and _is_old(float(notes.get("at") or 0)):
            store.delete(key)
    cache = settings().home / "packages"
    for folder in cache.iterdir() if cache.exists() else ():
        # Drafts are removed by who makes them.
        gone = not folder.name.startswith(".") and store.manifest(f"packages/{folder.name}") is None
        if gone and _is_old(folder.stat().st_mtime):
            shutil.rmtree(folder, ignore_errors=True)


def _is_old(at: float) -> bool:
    return time.time() - at > UNUSED_SECONDS


def _set_of(requirements: Sequence[str]) -> list[str]:
    return sorted({str(Requirement(requirement)) for requirement in requirements})


async def _fetch(wanted: list[str], key: str, draft: Path, folder: Path) -> None:
    """Make `folder` of the published archive; install and publish first where there is none."""
    store = artifact_store()
    if await asyncio.to_thread(store.manifest, key) is None:
        lock = await _install(wanted, draft)
        await asyncio.to_thread(_publish, key, wanted, draft / "installed", lock, draft / "artifact")
    archive = await asyncio.to_thread(store.folder, key)
    unpacked = draft / "unpacked"
    await asyncio.to_thread(shutil.unpack_archive, archive / _ARCHIVE, unpacked, filter="data")
    await asyncio.to_thread(_open_to_all, unpacked)
    # Another process may have been at the same: what is there is the same then.
    with suppress(OSError):
        unpacked.rename(folder)


def _open_to_all(folder: Path) -> None:
    """Let everybody read it, whatever this process's umask: in the sandbox it is somebody else who does."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def _publish(key: str, wanted: list[str], installed: Path, lock: str, artifact: Path) -> None:
    installed.mkdir(exist_ok=True)  # there is none where there was nothing to install
    artifact.mkdir()
    (artifact / _LOCK).write_text(lock)
    shutil.make_archive(str(artifact / _ARCHIVE.removesuffix(".tar.gz")), "gztar", installed)
    artifact_store().publish(key, artifact, {"requirements": json.dumps(wanted), "at": time.time()})


async def _install(wanted: list[str], draft: Path) -> str:
    """Have pip install `wanted` into the folder `installed` of `draft`, from where the operator's configuration of pip
    says. Returns a requirements file that pins each wheel by its hash.
    """
    named, wheels, report = ", ".join(wanted), draft / "wheels", draft / "report.json"
    wheels.mkdir()
    try:
        async with asyncio.timeout(INSTALL_SECONDS):
            # Not `install --dry-run`, which downloads them too, and once more to install.
            await _pip(["download", "--only-binary", ":all:", "--dest", str(wheels)], wanted, named, draft)
            files = [str(path) for path in wheels.iterdir()]
            if len(files) > MAX_PACKAGES:
                raise InvalidInput(
                    f"dependencies: {named} are {len(files)} packages with what they need; at most {MAX_PACKAGES} are "
                    "allowed."
                )
            if not files:  # markers leave nothing to install
                return ""
            into = ["--target", str(draft / "installed"), "--report", str(report)]
            await _pip(["install", "--no-index", "--no-deps", *into], files, named, draft)
    except TimeoutError:
        raise Unavailable(
            f"dependencies: installing {named} took longer than {INSTALL_SECONDS:g} s; try again later, or do with "
            "fewer.",
            code="installation_timed_out",
        ) from None
    if await asyncio.to_thread(_bytes_below, draft / "installed") > MAX_BYTES:
        raise _too_large(named)
    return "".join(await asyncio.to_thread(_pinned, report))


async def _pip(arguments: list[str], requirements: list[str], named: str, draft: Path) -> None:
    """Run pip, which downloads and unpacks in a folder of its own in `draft`. Raises InvalidInput with its words where
    it fails, or ends it where there is more in that folder than is allowed.
    """
    options = ["--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(dir=draft, ignore_cleanup_errors=True) as scratch:
        process = await asyncio.create_subprocess_exec(
            *(*_PIP, *arguments, *options, "--", *requirements),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=os.environ | {"TMPDIR": scratch},
            cwd=scratch,  # where no file has the name of a requirement
            start_new_session=True,
        )
        saying = asyncio.create_task(process.communicate())
        try:
            while not (await asyncio.wait([saying], timeout=_POLL_SECONDS))[0]:
                if await asyncio.to_thread(_bytes_below, scratch) > MAX_BYTES:
                    raise _too_large(named)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            said, _ = await saying
    if process.returncode != 0:
        raise InvalidInput(f"dependencies: {named} cannot be installed from wheels: {_reason(said)}")


def _too_large(named: str) -> InvalidInput:
    return InvalidInput(
        f"dependencies: {named} take more than {MAX_BYTES // 2**20} MiB with what they need, which is the most that is "
        "allowed."
    )


def _pinned(report: Path) -> list[str]:
    """A line for each wheel, from pip's account (https://pip.pypa.io/en/stable/reference/installation-report/)."""
    installed = json.loads(report.read_bytes())["install"]
    return sorted(
        f"{wheel['metadata']['name']}=={wheel['metadata']['version']} "
        f"--hash=sha256:{wheel['download_info']['archive_info']['hashes']['sha256']}\n"
        for wheel in installed
    )


def _reason(said: bytes) -> str:
    """pip's last lines, those that tell of errors where there are any."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    last = " ".join((errors or lines)[-_SHOWN_LINES:])
    return "".join(character for character in last if character.isprintable())[:2_000]


def _bytes_below(folder: Path | str) -> int:
    size = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):  # pip has moved it since it was listed
                size += Path(parent, file).lstat().st_size
    return size
