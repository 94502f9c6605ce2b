"""Trainer states in the artifact store: what a run, here or on another machine, goes on from after a kill.

They lie beside a job's checkpoints, not in them, so nobody downloads them, and only the last two are kept.
"""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from emissary.store.artifacts import CorruptArtifact, artifact_store
from tasks.patience import patiently
from tasks.publishing import publish

logger = logging.getLogger(__name__)

_KEPT = 2


def publish_state(job_id: str, folder: Path) -> None:
    """Give the trainer state in `folder` (`checkpoint-<step>`) to the store; what is there of it already stays."""
    # Fixed width, so that the order of names is that of steps.
    step = int(folder.name.rpartition("-")[2])
    publish(f"{_prefix(job_id)}/{step:09d}", folder, move=True)
    store = artifact_store()
    for old in sorted(patiently(store.keys, _prefix(job_id)))[:-_KEPT]:
        patiently(store.delete, old)


def restore(job_id: str, checkpoints: Iterable[int], work_dir: Path) -> None:
    """Make `work_dir` one that a trainer goes on from: the newest state that is whole, and which of the `checkpoints`
    need not be made again.
    """
    store = artifact_store()
    for key in sorted(patiently(store.keys, _prefix(job_id)), reverse=True):
        try:
            folder = patiently(store.folder, key)
        except CorruptArtifact as error:
            logger.warning("%s Going on from the state before it.", error)
            patiently(store.delete, key)
            continue
        step = int(key.rpartition("/")[2])
        shutil.copytree(folder, work_dir / "trainer" / f"checkpoint-{step}")
        break
    complete = work_dir / "complete"
    complete.mkdir()
    for number in checkpoints:
        (complete / str(number)).touch()


def forget(job_id: str) -> None:
    """Remove all states of a job that is done."""
    patiently(artifact_store().delete, _prefix(job_id))


def _prefix(job_id: str) -> str:
    return f"training-jobs/{job_id}/states"
