"""What speaks against a promotion, from the engine's figures alone."""

import asyncio
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from emissary.schemas.decisions import Contender, Decision, Replaced
from emissary.schemas.pipelines import Promotion, RequestFigures, Watch
from emissary.store import pipelines, promotions
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Deployment
from tasks import watching
from tasks.watching import fault, seen

WATCH = Watch(watch_seconds=60, min_requests=10, max_error_rate=0.1, max_latency_ratio=2.0)


def figures(requests: int, errors: int = 0, median: float | None = 0.1) -> RequestFigures:
    return RequestFigures(requests=requests, errors=errors, median_seconds=median)


BORNE: dict[str, tuple[RequestFigures | None, RequestFigures | None]] = {
    "no engine": (figures(50), None),
    "too few requests, all failed": (figures(50), figures(9, 9, None)),
    "as many errors as may be": (figures(50), figures(50, 5)),
    "fewer errors than before": (figures(50, 30), figures(50, 29)),
    "as slow as may be": (figures(50), figures(50, 0, 0.2)),
    "nothing to compare latency with": (None, figures(50, 0, 9.0)),
    "too few before to compare latency with": (figures(9), figures(50, 0, 9.0)),
    "too few answers to compare latency by": (figures(50, 45), figures(50, 42, 9.0)),
}
FAULTS = {
    "errors": (figures(50, 1), figures(50, 6), "6 of 50 requests failed (12.0%, where 10.0% may; before it were 2.0%)"),
    "errors without a before": (None, figures(10, 10, None), "10 of 10 requests failed"),
    "latency": (figures(10), figures(10, 0, 0.21), "took 0.21 s, 2.1 times the 0.1 s from before, where 2 times may"),
}


@pytest.mark.parametrize(("before", "after"), BORNE.values(), ids=BORNE)
def test_it_stays(before: RequestFigures | None, after: RequestFigures | None) -> None:
    assert fault(WATCH, before, after) is None


@pytest.mark.parametrize(("before", "after", "said"), FAULTS.values(), ids=FAULTS)
def test_it_is_taken_back(before: RequestFigures | None, after: RequestFigures, said: str) -> None:
    found = fault(WATCH, before, after)
    assert found is not None
    assert said in found


def test_latency_is_not_judged_where_it_is_not_wanted() -> None:
    watch = WATCH.model_copy(update={"max_latency_ratio": None})
    assert fault(watch, figures(50), figures(50, 0, 9.0)) is None


def test_watch_without_requests_says_so() -> None:
    assert seen(WATCH, Promotion(before=None)) == "It was watched for 60 s, in which no request came; it is kept."
    few = Promotion(before=figures(50), after=figures(3))
    assert "and 3 requests are fewer than the 10 to judge by" in seen(WATCH, few)


def test_watch_with_requests_tells_their_figures() -> None:
    promotion = Promotion(before=figures(50), after=figures(30, 1, 0.15))
    expected = "It was watched for 60 s: 30 requests, 1 failed, the median answer took 0.15 s (0.1 s before)."
    assert seen(WATCH, promotion) == expected


def test_watch_that_has_ended_is_not_judged_anew_after_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that fail later, while a push takes its time, change nothing."""
    served = {"training_job_id": "tr-1", "checkpoint": 1}
    challenger = Contender(**served, scores={})
    replaces = Replaced(deployment_id="dp-1", training_job_id="tr-0", checkpoint=1)
    decision = Decision(promoted=True, rules=[], test_rows=1, challenger=challenger, champion=None, replaces=replaces)
    kept = [Promotion(before=None, deployed="It serves.", watch_until=int(time.time()) - 1)]
    counted = [figures(50)]

    async def in_catalogue(work: Any, *args: Any) -> Any:
        if work is promotions.of_run:
            return kept[-1].model_copy()
        if work is promotions.keep:
            return kept.append(args[1])
        if work is pipelines.get:
            return None
        return Deployment(name="best", status="Deployed", **served), None

    async def count(*_: Any) -> RequestFigures:
        return counted[-1]

    monkeypatch.setattr(watching, "in_catalogue", in_catalogue)
    monkeypatch.setattr(watching, "enter", lambda _: None)
    monkeypatch.setattr(watching, "get_run_logger", lambda: logging.getLogger(__name__))
    monkeypatch.setattr(watching.pipelines, "config", lambda _: SimpleNamespace(watch=WATCH))
    monkeypatch.setattr(watching.engine_client, "figures", count)
    first = asyncio.run(watching.watch.fn(PipelineRun(id="pr-1", pipeline_id="pl-1"), decision))
    assert first == ("It was watched for 60 s: 50 requests, 0 failed, the median answer took 0.1 s.", False)
    counted.append(figures(60, 60, None))
    assert asyncio.run(watching.watch.fn(PipelineRun(id="pr-1", pipeline_id="pl-1"), decision)) == first
