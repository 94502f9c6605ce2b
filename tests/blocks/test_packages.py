"""Installing the dependencies of testing functions, from the package index that pip is configured for."""

import asyncio
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from blocks import packages
from blocks.packages import installed
from emissary.errors import InvalidInput, Unavailable
from emissary.store.artifacts import artifact_store
from tests.blocks.processes import descendants, running


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_set_is_installed_once_and_unpacked_where_its_folder_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o077)
    try:
        folder = asyncio.run(installed(["humanize", "rapidfuzz>=3"]))
    finally:
        os.umask(before)
    for path in (folder, *folder.rglob("*")):  # in the sandbox it is another user who reads them
        readable = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & readable == readable, path
    assert {"humanize/__init__.py", "rapidfuzz/__init__.py"} <= files(folder)
    there = files(folder)
    monkeypatch.setattr(packages, "INSTALL_SECONDS", 0.0)  # from here on, pip could not be run
    assert asyncio.run(installed(["rapidfuzz >= 3", "humanize"])) == folder
    shutil.rmtree(folder)  # another machine
    assert asyncio.run(installed(["humanize", "rapidfuzz>=3"])) == folder
    assert files(folder) == there
    assert [path.name for path in (home / "packages").iterdir()] == [folder.name]
    (lock,) = (home / "artifacts").rglob("requirements.lock")
    names = re.findall(r"^(\S+)==[0-9.]+ --hash=sha256:[0-9a-f]{64}$", lock.read_text(), re.MULTILINE)
    assert sorted(map(str.lower, names)) == ["humanize", "rapidfuzz"]


def test_a_set_that_no_function_names_any_more_is_removed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, gone = asyncio.run(installed(["humanize>=4"])), asyncio.run(installed(["humanize"]))
    used = [["humanize >= 4"], ["rapidfuzz"]]
    packages.clear_unused(used)  # it is new, and may be for a function that is about to be added
    assert kept.exists()
    assert gone.exists()
    monkeypatch.setattr(packages, "UNUSED_SECONDS", 0.0)
    packages.clear_unused(used)
    assert (kept.exists(), gone.exists()) == (True, False)
    assert [key.rpartition("/")[2] for key in artifact_store().keys("packages")] == [kept.name]
    assert asyncio.run(installed(["humanize"])) == gone


def test_two_at_once_get_the_same_folder(home: Path) -> None:
    async def both() -> list[Path]:
        return await asyncio.gather(installed(["humanize"]), installed(["humanize"]))

    first, second = asyncio.run(both())
    assert first == second
    assert [path.name for path in (home / "packages").iterdir()] == [first.name]


def test_a_set_of_which_nothing_applies_here_is_an_empty_folder(home: Path) -> None:
    assert files(asyncio.run(installed(["humanize; python_version < '3'"]))) == set()


@pytest.mark.parametrize("requirement", ["emissary-no-such-package-5f2", "humanize==0.0.0.1"])
def test_what_there_is_not_is_refused_in_pips_words(requirement: str, home: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be installed from wheels: .*No matching distribution found"):
        asyncio.run(installed([requirement]))
    assert not list((home / "packages").iterdir())


def evil(shelf: Path, ran: Path) -> Path:
    """A source distribution whose build leaves the file `ran`."""
    shelf.mkdir()
    project = "[build-system]\nrequires = []\nbuild-backend = 'evil'\nbackend-path = ['.']\n"
    archive = shelf / "emissary-evil-1.0.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("emissary-evil-1.0/pyproject.toml", project)
        file.writestr("emissary-evil-1.0/evil.py", f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n")
    return archive


@pytest.mark.parametrize("wanted", ["emissary-evil", "emissary-evil-1.0.zip", "emissary-good"])
def test_no_code_of_a_package_runs_by_installing_it(wanted: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, ran = home / "shelf", home / "ran"
    archive = evil(shelf, ran)
    with zipfile.ZipFile(shelf / "emissary_good-1.0-py3-none-any.whl", "w") as wheel:  # which needs it, by its address
        about = "emissary_good-1.0.dist-info"
        needs = f"Requires-Dist: emissary-evil @ {archive.as_uri()}\n"
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: emissary-good\nVersion: 1.0\n{needs}")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.chdir(shelf)
    monkeypatch.setenv("PIP_FIND_" + "LINKS", str(shelf))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InvalidInput, match="cannot be installed from wheels") as refused:
        asyncio.run(installed([wanted]))
    assert not ran.exists()
    if wanted == "emissary-good":
        assert "a package has no wheel and would have to be built" in str(refused.value)


def test_an_installation_that_takes_too_long_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "INSTALL_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="took longer than"):
        asyncio.run(installed(["humanize"]))
    assert not list((home / "packages").iterdir())


@pytest.mark.parametrize(
    ("limit", "most", "sentence"),
    [("MAX_BYTES", 1000, "take more than 0 MiB"), ("MAX_PACKAGES", 0, "are 1 packages .* at most 0 are")],
)
def test_a_set_that_is_too_large_is_refused(
    limit: str, most: int, sentence: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, limit, most)
    with pytest.raises(InvalidInput, match=sentence):
        asyncio.run(installed(["humanize"]))
    assert not list((home / "packages").iterdir())


def pip_is(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_PIP", [sys.executable, "-c", f"import os, sys, time\n{script}"])


def test_pip_is_ended_while_it_fetches_more_than_is_allowed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_BYTES", 2**20)
    pip_is("open(os.environ['TMPDIR'] + '/wheel', 'wb').write(bytes(2**21))\ntime.sleep(600)", monkeypatch)
    before = descendants(os.getpid())
    with pytest.raises(InvalidInput, match="take more than 1 MiB"):
        asyncio.run(installed(["humanize"]))
    assert not [process for process in descendants(os.getpid()) - before if running(process)]
    assert not list((home / "packages").iterdir())


def test_more_packages_than_are_allowed_are_not_unpacked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = home / "called"
    pip_is(
        f"open({str(called)!r}, 'a').write(sys.argv[1] + ' ')\n"
        "wheels = sys.argv[sys.argv.index('--dest') + 1]\n"
        "for number in range(65): open(f'{wheels}/{number}.whl', 'w')",
        monkeypatch,
    )
    with pytest.raises(InvalidInput, match="are 65 packages with what they need; at most 64 are allowed"):
        asyncio.run(installed(["humanize"]))
    assert called.read_text() == "download "
