from collections.abc import Iterator
from pathlib import Path

import pytest

from emissary.store.artifacts import ArtifactStore, artifact_store
from tasks.trainer_states import forget, publish_state, restore
from tests.own_home import own_home

JOB = "tr-1"


@pytest.fixture
def store() -> Iterator[ArtifactStore]:
    with own_home():
        yield artifact_store()


def saved(folder: Path, step: int) -> Path:
    state = folder / "saved" / f"checkpoint-{step}"
    state.mkdir(parents=True)
    (state / "optimizer.pt").write_text(f"state of step {step}")
    return state


def restored(folder: Path) -> dict[str, str]:
    """Step folder → content of each state that a trainer would find in the work folder."""
    return {state.name: (state / "optimizer.pt").read_text() for state in (folder / "trainer").glob("*")}


def test_newest_state_comes_back_in_another_folder(store: ArtifactStore, tmp_path: Path) -> None:
    for step in (5, 50, 1000):
        publish_state(JOB, saved(tmp_path, step))
    (tmp_path / "again").mkdir()
    restore(JOB, [1, 2], tmp_path / "again")
    assert restored(tmp_path / "again") == {"checkpoint-1000": "state of step 1000"}
    assert {file.name for file in (tmp_path / "again" / "complete").iterdir()} == {"1", "2"}


def test_only_the_last_two_states_are_kept(store: ArtifactStore, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        publish_state(JOB, saved(tmp_path, step))
    assert sorted(store.keys(f"training-jobs/{JOB}")) == [f"training-jobs/{JOB}/states/{step:09d}" for step in (2, 3)]


@pytest.mark.parametrize("damage", ["a flipped byte", "a truncated file", "a missing file", "a damaged manifest"])
def test_damaged_state_is_dropped_for_the_one_before(store: ArtifactStore, tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        publish_state(JOB, saved(tmp_path, step))
    folder = store.folder(f"training-jobs/{JOB}/states/000000002")
    file = folder / ("manifest.json" if damage == "a damaged manifest" else "optimizer.pt")
    match damage:
        case "a flipped byte":
            file.write_text("State of step 2")
        case "a missing file":
            file.unlink()
        case _:
            file.write_bytes(file.read_bytes()[:5])
    (tmp_path / "again").mkdir()
    restore(JOB, [], tmp_path / "again")
    assert restored(tmp_path / "again") == {"checkpoint-1": "state of step 1"}
    assert len(store.keys(f"training-jobs/{JOB}")) == 1


def test_state_without_a_manifest_is_not_there(store: ArtifactStore, tmp_path: Path) -> None:
    publish_state(JOB, saved(tmp_path, 1))
    (store.folder(f"training-jobs/{JOB}/states/000000001") / "manifest.json").unlink()
    (tmp_path / "again").mkdir()
    restore(JOB, [], tmp_path / "again")
    assert restored(tmp_path / "again") == {}
    # What is saved again at that step takes the place of what was left.
    publish_state(JOB, saved(tmp_path / "second", 1))
    assert (store.folder(f"training-jobs/{JOB}/states/000000001") / "optimizer.pt").exists()


def test_job_without_states_starts_at_the_beginning(store: ArtifactStore, tmp_path: Path) -> None:
    restore(JOB, [], tmp_path)
    assert restored(tmp_path) == {}


def test_states_of_a_finished_job_are_gone_and_its_checkpoints_stay(store: ArtifactStore, tmp_path: Path) -> None:
    publish_state(JOB, saved(tmp_path, 1))
    store.publish(f"training-jobs/{JOB}/checkpoints/1", saved(tmp_path / "adapter", 1))
    forget(JOB)
    forget(JOB)
    assert store.keys(f"training-jobs/{JOB}") == [f"training-jobs/{JOB}/checkpoints/1"]
