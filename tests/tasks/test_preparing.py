"""Which rows a job trains and tests on, for any dataset and any settings."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from emissary.errors import InvalidInput
from emissary.store.tables import Dataset, TrainingJob
from tasks.preparing import divided, require_two_classes, warnings_of

ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=4, max_size=80)


def a_job(rows: list[dict[str, Any]], **more: Any) -> TrainingJob:
    counts = dict(Counter(next(iter(row["labels"])) for row in rows))
    dataset = Dataset(report={"label_kind": "multiclass", "class_counts": counts})
    parameters = {"seed": more.pop("seed", 1), "downsample_size": more.pop("percent", 100)}
    return TrainingJob(task_type="classification", hyper_parameters=parameters, train_dataset=dataset, **more)


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(row, sort_keys=True) for row in rows]


def inputs(rows: list[dict[str, Any]]) -> set[str]:
    return {" ".join(row["prompt"].split()) for row in rows}


def labels_of(rows: list[dict[str, Any]]) -> set[str]:
    return {next(iter(row["labels"])) for row in rows}


@given(ROWS, st.floats(5, 60), st.floats(20, 100), st.integers(0, 2**32), st.data())
def test_input_that_is_tested_is_never_trained_on_whatever_its_answers(given_rows, ratio, percent, seed, data):
    rows = [
        {"prompt": f"text{' ' * data.draw(st.integers(1, 2))}{number}", "labels": {label: 1}}
        for number, label in given_rows
    ]
    assume(len(inputs(rows)) > 1)
    job = a_job(rows, train_test_split_ratio=ratio, percent=percent, seed=seed)
    kept, held_out = divided(job, rows, None)
    wanted = {
        label: float(data.draw(st.integers(0, 50))) if label in labels_of(kept) else 0.0
        for label in job.train_dataset.report["class_counts"]
    }
    assume(sum(wanted.values()) > 1)
    job.rebalance_data = wanted
    training, test = divided(job, rows, None)
    assert test
    assert not inputs(training) & inputs(test)
    assert texts(test) == texts(held_out)
    assert Counter(next(iter(row["labels"])) for row in training) == Counter(
        {label: int(count) for label, count in wanted.items() if count}
    )
    assert (training, test) == divided(job, rows, None)


TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": st.sampled_from("ab")})
CONVERSATIONS = st.lists(st.tuples(st.lists(TURN, min_size=1, max_size=2), st.sampled_from("xy")), min_size=2)
PAIRS = st.lists(st.tuples(*[st.sampled_from("abc")] * 2, st.floats(-1, 1)), min_size=2)


@given(CONVERSATIONS, PAIRS, st.floats(1, 99), st.integers(0, 2**32))
def test_conversations_and_pairs_with_the_same_input_stay_on_one_side(conversations, pairs, ratio, seed):
    chats = [{"messages": [*turns, {"role": "assistant", "content": answer}]} for turns, answer in conversations]
    of_pairs = [{"text_a": a, "text_b": b, "similarity": similarity} for a, b, similarity in pairs]
    for rows, asked in (
        (chats, lambda row: row["messages"][:-1]),
        (of_pairs, lambda row: [row["text_a"], row["text_b"]]),
    ):
        assume(len({json.dumps(asked(row), sort_keys=True) for row in rows}) > 1)
        parameters = {"seed": seed, "downsample_size": 100}
        job = TrainingJob(task_type="embedding", hyper_parameters=parameters, train_test_split_ratio=ratio)
        training, test = divided(job, rows, None)
        assert training
        assert test
        assert not [row for row in test if asked(row) in map(asked, training)]
        assert len(training) + len(test) == len(rows)


@given(ROWS, st.floats(1, 99), st.floats(1, 100), st.integers(0, 2**32))
def test_labels_that_are_tested_and_not_trained_on_are_told_and_one_class_alone_is_refused(
    given_rows, ratio, percent, seed
):
    rows = [{"prompt": f"{number}", "labels": {label: 1}} for number, label in given_rows]
    assume(len(inputs(rows)) > 1)
    job = a_job(rows, train_test_split_ratio=ratio, percent=percent, seed=seed)
    training, test = divided(job, rows, None)
    told = [details["labels"] for details, _ in warnings_of(training, test) if "labels" in details]
    unseen = sorted(labels_of(test) - labels_of(training))
    assert told == ([unseen] if unseen else [])
    if len(labels_of(training)) > 1:
        require_two_classes(job, training)
    else:
        with pytest.raises(InvalidInput, match=rf"All rows that are left .*train_test_split_ratio {ratio}"):
            require_two_classes(job, training)


def test_other_task_types_have_no_classes():
    job = TrainingJob(task_type="regression", hyper_parameters={"downsample_size": 100})
    rows = [{"prompt": "a", "target": 1.0}] * 2
    require_two_classes(job, rows)
    assert warnings_of(rows, [{"prompt": "b", "target": 1.0}]) == []


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
