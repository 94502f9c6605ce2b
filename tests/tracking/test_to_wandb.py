"""Jobs written by Weights & Biases' package in its offline mode, and read back from the file that it wrote.

That is what `wandb sync` sends; its records are read with the package's own classes. The server cannot be reached
here: a fake (wandb_server.py) stands for it.
"""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emissary.settings import PROJECT_ROOT
from tests.jobs import until
from tests.tracking.jobs import MOMENTS, job_at, renamed
from tests.tracking.wandb_server import fake_server

wandb = pytest.importorskip("wandb", reason="NOT TESTED: telling Weights & Biases. `make trackers` installs it.")

from wandb.proto import wandb_internal_pb2  # noqa: E402

from emissary.tracking.to_wandb import Wandb  # noqa: E402

_HEADER, _BLOCK = 7, 32768


@pytest.fixture(scope="module")
def ended() -> Iterator[None]:
    """The package's own process is, behind the tests."""
    yield
    wandb.teardown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: None) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_PROJECT", "tickets")
    return tmp_path


def records(folder: Path, job_id: str = "tr-1") -> list[Any]:
    """The records of the job's only run, once the package's own process has written the last of them."""
    return list(until(lambda: read(folder, job_id), lambda found: any(one.HasField("exit") for one in found), 30))


def read(folder: Path, job_id: str) -> list[Any]:
    """The records by now: LevelDB's log format behind a header of seven bytes."""
    (file,) = folder.glob(f"{job_id}/wandb/offline-run-*/run-{job_id}.wandb")
    content, found, record, at = file.read_bytes(), [], b"", _HEADER
    assert not content or content.startswith(b":W&B")
    while at + _HEADER <= len(content):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (1, 4):  # a whole one, or the last part of one
            found.append(wandb_internal_pb2.Record.FromString(record))
            record = b""
    return found


def history(found: list[Any]) -> list[dict[str, Any]]:
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.history.item}
        | {"_step": one.history.step.num}
        for one in found
        if one.HasField("history")
    ]
    return [{name: value for name, value in row.items() if name != "_runtime"} for row in rows]


def latest(found: list[Any], kind: str) -> dict[str, Any]:
    """The last value of each item of the records' updates of `kind`, config or summary."""
    values: dict[str, Any] = {}
    for one in found:
        if one.HasField(kind):
            for item in getattr(one, kind).update:
                values["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return values


def check(folder: Path) -> None:
    """The whole life of the job is there, each point once."""
    found = records(folder)
    rows = history(found)
    assert [row["_step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["train/loss"] for row in rows[:4]] == [1.0, 0.5, pytest.approx(1 / 3), 0.25]
    assert [row["_timestamp"] for row in rows[:4]] == [1001.0, 1002.0, 1003.0, 1004.0]
    assert [row["train/rewards/exact_match_shared"] for row in rows[:4]] == [0.1, 0.2, 0.3, 0.4]
    tested = [
        (row["checkpoint"], row["checkpoint/loss/test"], row["checkpoint/score/exact_match_shared"]) for row in rows[4:]
    ]
    assert tested == [(1, 2.0, 0.25), (2, 1.0, 0.5)]
    config, summary = latest(found, "config"), latest(found, "summary")
    assert (config["learning_rate"], config["train_dataset_id"], config["emissary.organization"]) == (
        0.01, "ds-1", "ours",
    )  # fmt: skip
    assert (summary["best_checkpoint"], summary["status"]) == (2, "Success")
    assert summary["checkpoints/2/score/exact_match_shared"] == 0.5
    (run,) = [one.run for one in found if one.HasField("run")][-1:]
    assert (run.run_id, run.display_name, run.project, run.host) == ("tr-1", "triage", "tickets", "emissary")
    assert [one.exit.exit_code for one in found if one.HasField("exit")] == [0]


def test_life_of_a_job_is_one_run_with_each_point_once(folder: Path) -> None:
    tracker = Wandb()
    for moment in MOMENTS[:-1]:
        tracker.tell(moment)
    check(folder)


def telling(folder: Path, *arguments: str) -> int:
    """How a process of its own ended, which does not share the package's process with that of the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [sys.executable, "-m", "tests.tracking.telling", str(folder), *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=False).returncode


def test_another_process_goes_on_without_a_point_twice(folder: Path) -> None:
    """Offline it writes all of it anew. The first one is killed."""
    assert telling(folder, "offline", "0", "3", "kill") == -signal.SIGKILL
    assert list(folder.glob("tr-1/wandb/offline-run-*/run-tr-1.wandb"))
    tracker = Wandb()
    for moment in MOMENTS[3:-1]:
        tracker.tell(moment)
    check(folder)


def test_job_that_fails_has_its_checkpoints_in_the_summary(folder: Path) -> None:
    tracker = Wandb()
    tracker.tell(renamed(job_at(2, checkpoints=1), "tr-2"))
    tracker.tell(renamed(job_at(3, "Failed", checkpoints=1), "tr-2"))
    found = records(folder, "tr-2")
    assert [row["_step"] for row in history(found)] == [1, 2, 3]
    assert latest(found, "summary")["checkpoints/1/loss/test"] == 2.0
    assert [one.exit.exit_code for one in found if one.HasField("exit")] == [1]


def test_run_on_a_server_is_resumed_where_the_killed_process_left_it(tmp_path: Path) -> None:
    with fake_server() as server:
        assert telling(tmp_path, server.url, "0", "3", "kill") == -signal.SIGKILL
        (run,) = server.runs.values()
        assert [line["_step"] for line in run.lines] == [1, 2, 3]
        assert telling(tmp_path, server.url, "3", "5") == 0
        assert set(server.runs) == {"tr-1"}
        assert [line["_step"] for line in run.lines] == [1, 2, 3, 4, 5, 6]
        assert [line.get("train/loss") for line in run.lines[:4]] == [1.0, 0.5, pytest.approx(1 / 3), 0.25]
        assert [line.get("checkpoint/score/exact_match_shared") for line in run.lines[4:]] == [0.25, 0.5]
        assert (run.exit_code, run.summary["best_checkpoint"], run.summary["status"]) == (0, 2, "Success")
        assert not (tmp_path / "tr-1").exists()
