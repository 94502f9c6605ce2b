"""The event file is one that TensorBoard's own format reads, with each step once."""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from emissary.store.tables import Checkpoint, TrainingJob
from tasks.event_files import write

CREATED = datetime(2026, 1, 2, tzinfo=UTC)


def events(file: Path) -> Iterator[Any]:
    """The events of a TFRecord file: length, checksum of that, content, checksum of that."""
    content = file.read_bytes()
    at = 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield Event.FromString(content[at + 12 : at + 12 + length])
        at += 12 + length + 4


@pytest.fixture
def job() -> TrainingJob:
    points = [
        {
            "timestamp": 1000 + step,
            "step": step,
            "epoch": step / 2,
            "loss": 1 / step,
            "kl": None,
            "rewards": {"f": step},
        }
        for step in (2, 1, 3)
    ]
    return TrainingJob(id="tr-1", training_loss=points, hyper_parameters={"lora_r": 2}, created_at=CREATED)


def test_curves_and_scores_are_in_one_file_named_after_the_job(tmp_path: Path, job: TrainingJob) -> None:
    rows = [
        Checkpoint(number=1, train_loss=0.5, test_loss=None, scores={"exact_match_shared": 0.25}, created_at=CREATED),
        Checkpoint(number=2, train_loss=0.25, test_loss=0.75, scores=None, created_at=CREATED),
    ]
    write(tmp_path, job, rows)
    (file,) = tmp_path.iterdir()
    assert file.name == f"events.out.tfevents.{int(CREATED.timestamp())}.tr-1"
    found: dict[str, list[tuple[int, float, float]]] = {}
    for event in events(file):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value, event.wall_time))
    at = CREATED.timestamp()
    assert found["train/loss"] == [(1, 1.0, 1001.0), (2, 0.5, 1002.0), (3, pytest.approx(1 / 3), 1003.0)]
    assert [value for _, value, _ in found["train/rewards/f"]] == [1.0, 2.0, 3.0]
    assert found["checkpoint/loss/train"] == [(1, 0.5, at), (2, 0.25, at)]
    assert found["checkpoint/loss/test"] == [(2, 0.75, at)]
    assert found["checkpoint/score/exact_match_shared"] == [(1, 0.25, at)]
    assert "train/kl" not in found
