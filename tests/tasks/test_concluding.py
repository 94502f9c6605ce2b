"""A run that was killed between its outcome and its end."""

import asyncio
from typing import Any

import pytest

from emissary.store.pipeline_tables import PipelineRun
from flows import retrain
from tasks import concluding


@pytest.mark.parametrize("outcome", ["Skipped", "NotPromoted", "RolledBack", "Promoted"])
def test_run_that_has_an_outcome_ends_with_that_and_does_nothing_else(
    monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    recorded: list[tuple[Any, ...]] = []

    async def pipeline_run(*_: Any) -> PipelineRun:
        return PipelineRun(id="pr-1", outcome=outcome, reason="It was so.")

    async def record(run: PipelineRun, *what: Any) -> None:
        recorded.append((run.id, *what))

    async def fail(*_: Any) -> None:
        pytest.fail("it goes on")

    monkeypatch.setattr(retrain, "pipeline_run", pipeline_run)
    monkeypatch.setattr(concluding, "_record", record)
    monkeypatch.setattr(retrain, "turn", fail)
    state = asyncio.run(retrain.retrain.fn("pl-1", "pr-1"))
    assert (state.name, state.message) == (outcome, "It was so.")
    assert recorded == [("pr-1", outcome, "It was so.")]
