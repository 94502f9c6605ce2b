import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from emissary.errors import NotFound, Unavailable
from emissary.store import local_artifacts
from emissary.store.artifacts import artifact_store
from emissary.store.local_artifacts import LocalArtifactStore
from tasks import patience
from tasks.checkpoint_testing import published_results, write_results
from tasks.patience import patiently
from tasks.publishing import made_once, publish
from tasks.trainer_states import forget, publish_state, restore
from tests.own_home import own_catalogue, own_home

KEY = "training-jobs/tr-1/checkpoints/1"


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A store that is away whenever it is asked something for the first time; what it was asked."""
    monkeypatch.setattr(patience, "_FIRST_WAIT_SECONDS", 0.001)
    asked: list[str] = []

    def away_first(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def ask(store: LocalArtifactStore, key: str, *args: object, **more: object) -> object:
            asked.append(f"{name} {key}")
            if asked.count(asked[-1]) == 1:
                raise Unavailable("The store cannot be reached.")
            return real(store, key, *args, **more)

        return ask

    for name in ("folder", "keys", "delete", "publish"):
        real = getattr(local_artifacts.LocalArtifactStore, name)
        monkeypatch.setattr(local_artifacts.LocalArtifactStore, name, away_first(name, real))
    return asked


def test_store_that_is_away_is_asked_again_and_the_log_says_so(
    flaky: list[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with own_home(), caplog.at_level(logging.WARNING):
        assert patiently(artifact_store().keys, "training-jobs") == []
    assert "The store cannot be reached. Trying again in 0.0 s." in caplog.text


def test_other_errors_are_not_waited_for(flaky: list[str]) -> None:
    with own_home():
        with pytest.raises(NotFound):
            patiently(artifact_store().folder, KEY)
        assert len(flaky) == 2


def test_store_that_stays_away_fails_the_run_in_the_end(
    monkeypatch: pytest.MonkeyPatch, flaky: list[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(patience, "_PATIENCE_SECONDS", -1.0)
    with own_home(), pytest.raises(Unavailable):
        publish(KEY, tmp_path)


def test_what_runs_ask_of_the_store_waits_for_it(flaky: list[str], tmp_path: Path) -> None:
    state = tmp_path / "checkpoint-1"
    state.mkdir()
    (state / "optimizer.pt").write_text("state")
    write_results(tmp_path / "results", [("in", "a", "b")], {"exact": [0.5]})
    (tmp_path / "work").mkdir()
    with own_catalogue():
        rows = made_once("prepared/1", lambda folder: (folder / "rows").write_text("rows") and None)
        assert (rows / "rows").read_text() == "rows"
        publish_state("tr-1", state)
        restore("tr-1", [], tmp_path / "work")
        assert (tmp_path / "work" / "trainer" / "checkpoint-1" / "optimizer.pt").exists()
        forget("tr-1")
        publish(KEY, tmp_path / "results")
        results = published_results(KEY)
        assert results is not None
        assert results.means == {"exact": 0.5}
