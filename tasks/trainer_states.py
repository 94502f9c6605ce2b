"""Trainer states in the artifact store: what a run, here or on another machine, goes on from after a kill.

They lie beside a job's checkpoints, not in them, so nobody downloads them, and only the last two are kept.
"""

import logging
import shutil
from collections.abc import Collection
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch

from emissary.store.artifacts import CorruptArtifact, Notes, artifact_store
from tasks.patience import patiently
from tasks.publishing import publish

logger = logging.getLogger(__name__)

_KEPT = 2
_BEHIND, _THREADS = "behind_checkpoint", "threads"
"""What is noted of a state: the last checkpoint before it, of those without a gap; how many threads torch has."""


def publish_state(job_id: str, folder: Path, complete: Collection[int] = ()) -> None:
    """Give the trainer state in `folder` (`checkpoint-<step>`) to the store; what is there of it already stays.

    `complete` are the numbers of the checkpoints that are published by now.
    """
    # Fixed width, so that the order of names is that of steps.
    step = int(folder.name.rpartition("-")[2])
    notes: Notes = {_BEHIND: _first_missing(complete) - 1, _THREADS: torch.get_num_threads()}
    publish(f"{_prefix(job_id)}/{step:09d}", folder, notes, move=True)
    store = artifact_store()
    for old in sorted(patiently(store.keys, _prefix(job_id)))[:-_KEPT]:
        patiently(store.delete, old)


class Restored(NamedTuple):
    """The trainer state that a run goes on from."""

    step: int
    """The last optimizer step before it."""
    threads: int | None
    """How many torch had when it was saved; None where that is not known."""


def restore(job_id: str, complete: Collection[int], work_dir: Path) -> Restored | None:
    """Make `work_dir` one that a trainer goes on from: the newest state that is whole and not behind a checkpoint that
    is missing; and which checkpoints are `complete`, so that they need not be made again.

    Returns the state; None where there is none, and training begins.
    """
    restored = None
    store = artifact_store()
    for key in sorted(patiently(store.keys, _prefix(job_id)), reverse=True):
        try:
            folder = patiently(store.folder, key)
            manifest = patiently(store.manifest, key)
        except CorruptArtifact as error:
            logger.warning("%s Going on from the state before it.", error)
            patiently(store.delete, key)
            continue
        notes = manifest.notes if manifest is not None else {}
        if int(notes.get(_BEHIND) or 0) >= _first_missing(complete):
            patiently(store.delete, key)  # a trainer that goes on from here would not make the missing one
            continue
        step = int(key.rpartition("/")[2])
        restored = Restored(step, int(notes.get(_THREADS) or 0) or None)
        shutil.copytree(folder, work_dir / "trainer" / f"checkpoint-{step}")
        break
    (work_dir / "complete").mkdir()
    for number in complete:
        (work_dir / "complete" / str(number)).touch()
    return restored


def forget(job_id: str) -> None:
    """Remove all states of a job that is done."""
    patiently(artifact_store().delete, _prefix(job_id))


def _first_missing(complete: Collection[int]) -> int:
    return next(number for number in count(1) if number not in complete)


def _prefix(job_id: str) -> str:
    return f"training-jobs/{job_id}/states"
