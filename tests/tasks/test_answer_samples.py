from pathlib import Path
from typing import Any

import pytest

from emissary.settings import settings
from emissary.store.tables import TrainingJob
from tasks.answer_samples import answer_samples
from tasks.checkpoint_testing import write_results
from tasks.publishing import publish

JOB = TrainingJob(id="tr-samples", test_functions=["exact_match_shared"])
RESULTS = f"training-jobs/{JOB.id}/results/of-these-functions"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "home", tmp_path / "home")


def results(tmp_path: Path, what: Any, answers: list[str]) -> None:
    tested = [(f"question {number}", "right", answer) for number, answer in enumerate(answers)]
    scores = {"exact_match_shared": [float(answer == "right") for answer in answers]}
    write_results(tmp_path / str(what), tested, scores)
    publish(f"{RESULTS}/{what}", tmp_path / str(what))


def test_the_first_ten_rows_have_both_answers_and_scores(tmp_path: Path) -> None:
    results(tmp_path, "base", ["x" * 600] * 12)
    results(tmp_path, 2, ["right"] * 12)
    samples = answer_samples(JOB, RESULTS, 2)
    assert [row["input"] for row in samples] == [f"question {number}" for number in range(10)]
    assert samples[0] == {
        "input": "question 0",
        "expected": "right",
        "base model": "x" * 199 + "…",
        "checkpoint 2": "right",
        "exact_match_shared, base model": 0.0,
        "exact_match_shared, checkpoint 2": 1.0,
    }


def test_where_the_base_model_has_no_answers_those_after_are_alone(tmp_path: Path) -> None:
    results(tmp_path, 1, ["right", "wrong"])
    assert [set(row) for row in answer_samples(JOB, RESULTS, 1)] == [
        {"input", "expected", "checkpoint 1", "exact_match_shared, checkpoint 1"}
    ] * 2
