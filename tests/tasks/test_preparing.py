"""Which rows a job trains and tests on, for any dataset and any settings."""

import json
from collections import Counter
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from emissary.store.tables import Dataset, TrainingJob
from tasks.preparing import divided

ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=4, max_size=80)


def a_job(rows: list[dict[str, Any]], **more: Any) -> TrainingJob:
    counts = dict(Counter(next(iter(row["labels"])) for row in rows))
    dataset = Dataset(report={"label_kind": "multiclass", "class_counts": counts})
    parameters = {"seed": more.pop("seed", 1), "downsample_size": more.pop("percent", 100)}
    return TrainingJob(task_type="classification", hyper_parameters=parameters, train_dataset=dataset, **more)


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(row, sort_keys=True) for row in rows]


@given(ROWS, st.floats(5, 60), st.floats(20, 100), st.integers(0, 2**32), st.data())
def test_row_that_is_tested_is_never_trained_on(given_rows, ratio, percent, seed, data):
    rows = [{"prompt": f"text {number}", "labels": {label: 1}} for number, label in given_rows]
    assume(len(set(texts(rows))) > 1)
    job = a_job(rows, train_test_split_ratio=ratio, percent=percent, seed=seed)
    kept, held_out = divided(job, rows, None)
    present = {next(iter(row["labels"])) for row in kept}
    wanted = {
        label: float(data.draw(st.integers(0, 50))) if label in present else 0.0
        for label in job.train_dataset.report["class_counts"]
    }
    assume(sum(wanted.values()) > 1)
    job.rebalance_data = wanted
    training, test = divided(job, rows, None)
    assert test
    assert not set(texts(training)) & set(texts(test))
    assert texts(test) == texts(held_out)
    assert Counter(next(iter(row["labels"])) for row in training) == Counter(
        {label: int(count) for label, count in wanted.items() if count}
    )
    assert (training, test) == divided(job, rows, None)


@given(ROWS, st.floats(1, 100), st.integers(0, 2**32))
def test_every_class_keeps_its_share_when_rows_are_downsampled(given_rows, percent, seed):
    rows = [{"prompt": f"{number}", "labels": {label: 1}} for number, label in given_rows]
    training, test = divided(a_job(rows, percent=percent, seed=seed), rows, None)
    assert not test
    assert len(training) == max(1, round(len(rows) * percent / 100))
    found = Counter(next(iter(row["labels"])) for row in training)
    for label, count in Counter(label for _, label in given_rows).items():
        assert abs(found[label] - count * percent / 100) < 1 or len(training) == 1


def test_given_test_rows_are_all_tested_on():
    rows = [{"prompt": f"{number}", "labels": {"a": 1}} for number in range(4)]
    assert divided(a_job(rows), rows, rows[:2]) == (rows, rows[:2])
