"""What a damaged artifact store or a full disk does to jobs: they say so, and nothing half-written is listed."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from emissary.client import Client
from tests.acceptance import evidence
from tests.acceptance.evidence import MANIFEST
from tests.acceptance.own_platform import OwnPlatform
from tests.acceptance.small_jobs import CLASSES, SFT, Small
from tests.jobs import ended, until, upload

pytestmark = pytest.mark.acceptance
WEIGHTS = "adapter_model.safetensors"
LONG = CLASSES.body["parameters"] | {"num_train_epochs": 15}
MIB = 2**20


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Lose the second half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def start(client: Client, small: Small, **more: Any) -> str:
    """Path of a new job in a project of its own."""
    project = client.post("/v1/projects", {"name": "damage"})["id"]
    body = small.body | {
        "train_dataset_id": upload(client, project, small.rows),
        "test_dataset_id": upload(client, project, small.test_rows, "test"),
    }
    path = f"/v1/projects/{project}/training-jobs"
    return f"{path}/{client.post(path, body | more)['id']}"


def whole(own: OwnPlatform, client: Client, path: str) -> list[int]:
    """Numbers of the checkpoints that are listed; each must be as its manifest says."""
    listed: list[int] = [row["checkpoint"] for row in client.get(f"{path}/checkpoints")]
    for number in listed:
        assert evidence.damage(checkpoint(own, path, number) / MANIFEST)[0] == ""
    return listed


def checkpoint(own: OwnPlatform, path: str, number: int) -> Path:
    """Its folder in the store."""
    return own.home / "artifacts" / "training-jobs" / path.rpartition("/")[2] / "checkpoints" / str(number)


@pytest.mark.parametrize(
    ("name", "damage"),
    [(WEIGHTS, flip), (WEIGHTS, truncate), (WEIGHTS, os.remove), (MANIFEST, os.remove)],
    ids=["flipped bit", "truncated", "missing file", "missing manifest"],
)
def test_damaged_checkpoint_is_made_again_or_its_job_says_so_and_makes_it_again_when_resumed(
    own: OwnPlatform, name: str, damage: Callable[[Path], None]
) -> None:
    client = own.client()
    path = start(client, CLASSES, parameters=LONG)
    until(lambda: client.get(f"{path}/checkpoints"), bool)
    damage(checkpoint(own, path, 1) / name)
    job = until(lambda: client.get(path), ended, 300)
    if job["status"] == "Success":
        assert whole(own, client, path) == list(range(1, 16))
    else:
        key = f"training-jobs/{job['id']}/checkpoints/1"
        assert job["status"] == "Failed"
        assert key in job["error"]
        assert job["error"].endswith("Resume the job, which trains it again."), job["error"]
        # What is listed of it must not come down as if it were whole.
        (link,) = (row["model_download_url"] for row in client.get(f"{path}/checkpoints") if row["checkpoint"] == 1)
        with pytest.raises((httpx.RemoteProtocolError, httpx.HTTPStatusError)):
            httpx.get(link, trust_env=False, timeout=60).raise_for_status()
        client.post(f"{path}/resume")
        job = until(lambda: client.get(path), ended, 300)
        assert job["status"] == "Success", job["error"]
        assert whole(own, client, path) == list(range(1, 16))


def test_damaged_rows_are_prepared_again_or_the_job_says_so(own: OwnPlatform) -> None:
    client = own.client()
    path = start(client, CLASSES)
    job = until(lambda: client.get(path), ended, 120)
    dataset = job["train_dataset"]["id"]
    jobs = path.rpartition("/")[0]
    sha256 = client.get(f"{jobs.rpartition('/')[0]}/datasets/{dataset}")["profile"]["sha256"]
    (rows,) = (own.home / "artifacts" / "prepared" / sha256).glob("rows-*/rows.parquet")
    flip(rows)
    body = CLASSES.body | {"train_dataset_id": dataset}
    again = f"{jobs}/{client.post(jobs, body)['id']}"
    job = until(lambda: client.get(again), ended, 120)
    assert job["status"] == "Success" or f"prepared/{sha256}" in job["error"]


@contextmanager
def small_disk(folder: Path, free: int) -> Iterator[Path]:
    """A disk of its own at `folder`, with so many bytes free; gives the file that takes the rest."""
    folder.mkdir(exist_ok=True)
    there = [path.name for path in folder.iterdir()]
    mount = ["mount", "-t", "tmpfs", "-o", f"size={64 * MIB}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: a full disk. This user may not mount one: {done.stderr.strip()}")
    try:
        for name in there:
            (folder / name).mkdir()
        filler = folder / "filler"
        filler.write_bytes(bytes(64 * MIB - free))
        yield filler
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def empty(own: OwnPlatform) -> OwnPlatform:
    """The platform with nothing in its store, so that another disk can be mounted there."""
    client = own.client()
    for project in client.get("/v1/projects"):
        client.delete(f"/v1/projects/{project['id']}")
    for left in sorted((own.home / "artifacts").rglob("*"), reverse=True):
        assert left.is_dir(), f"{left} is left of deleted projects"
        left.rmdir()
    return own


@pytest.mark.parametrize("folder", ["artifacts", "scratch"])
def test_full_disk_fails_the_job_with_a_sentence_and_leaves_nothing_half_written(
    empty: OwnPlatform, folder: str
) -> None:
    client = empty.client()
    with small_disk(empty.home / folder, 2 * MIB) as filler:
        path = start(client, SFT)
        job = until(lambda: client.get(path), ended, 300)
        assert job["status"] == "Failed", "the disk was not full"
        assert "Make room on the disk" in job["error"]
        whole(empty, client, path)
        assert list((empty.home / "artifacts" / ".drafts").iterdir()) == []
        filler.unlink()
        again = start(client, SFT)
        job = until(lambda: client.get(again), ended, 300)
        assert job["status"] == "Success", job["error"]
        assert whole(empty, client, again) == [1, 2]
        for project in client.get("/v1/projects"):
            client.delete(f"/v1/projects/{project['id']}")
    assert json.loads(client.http.get("/healthz").text)["api"] == "ok"
