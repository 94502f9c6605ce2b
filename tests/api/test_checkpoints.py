"""What the API shows of a checkpoint's row."""

from datetime import UTC, datetime
from typing import Any

from emissary.api import links
from emissary.api.routes.training_jobs import _checkpoint
from emissary.schemas.training_jobs import ClassMetrics, TrainingJobCheckpoint
from emissary.store.tables import Checkpoint, TrainingJob
from tests.own_home import own_home


def shown(**columns: Any) -> TrainingJobCheckpoint:
    row = Checkpoint(
        training_job_id="tr-1", number=2, artifact="training-jobs/tr-1/checkpoints/2", created_at=datetime.now(UTC),
        updated_at=datetime.now(UTC), **columns,
    )  # fmt: skip
    return _checkpoint(TrainingJob(id="tr-1", name="topics", best_checkpoint=2), row)


def linked(url: str) -> tuple[str, str | None, str]:
    link = links.read(url.rpartition("/")[2])
    return link.key, link.file, link.save_as


def test_metrics_and_plots_come_with_the_results() -> None:
    of_class = {"precision": 0.5, "recall": None, "f1": 0.0, "support": 0}
    interval = {"mean": 0.5, "low": 0.25, "high": 0.75}
    worst = [{"row": 3, "score": 0.0, "input": "in", "expected_output": "a", "output": "b"}]
    summary = interval | {"rows": 4, "base": None, "difference": interval, "worst": worst}
    report = {
        "metrics": {"accuracy": 0.5, "macro_f1": None},
        "class_metrics": {"food": of_class},
        "plots": ["roc"],
        "test_summary": {"exact": summary},
    }
    key = "training-jobs/tr-1/results/2"
    with own_home():
        found = shown(scores={}, report=report, results_artifact=key)
        assert found.test_results is not None
        assert found.test_results.metrics == report["metrics"]
        assert found.test_results.class_metrics == {"food": ClassMetrics.model_validate(of_class)}
        assert found.test_results.model_dump()["test_summary"] == {"exact": summary}
        assert linked(found.plots["roc"]) == (key, "roc.png", "topics-checkpoint-2-roc.png")
        assert linked(found.test_results.general_test_result) == (
            key, "results.csv", "topics-checkpoint-2-results.csv",
        )  # fmt: skip


def test_what_an_earlier_version_tested_has_neither() -> None:
    with own_home():
        found = shown(scores={"exact": 0.5}, report=None, results_artifact="training-jobs/tr-1/results/2")
        assert found.test_results is not None
        assert found.test_results.aggregated_test_result == {"exact": "0.5"}
        assert "test_summary" not in found.test_results.model_dump()
        assert (found.test_results.metrics, found.test_results.class_metrics, found.plots) == ({}, None, {})
        assert shown(scores=None, report=None, results_artifact=None).plots == {}
