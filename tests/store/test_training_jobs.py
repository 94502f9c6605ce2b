"""What is checked of a job's datasets before it is kept is all that its training would stumble over."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from emissary.data.validation import validate
from emissary.errors import InvalidInput
from emissary.store import training_jobs
from emissary.store.tables import Dataset
from tasks.pooled_rows import examples, task_of
from tests.tasks.pooled_run import encoder_dir

COMPLETIONS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "positive", "negative"]), st.sampled_from([0, 1]), min_size=1),
    min_size=1,
    max_size=6,
)
TOKENIZER = AutoTokenizer.from_pretrained(encoder_dir())


def dataset(name: str, completions: list[dict[str, int]]) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps({"prompt": "x", "completion": row}) + "\n" for row in completions))
        return Dataset(name=name, report=validate(path, path.name).model_dump(mode="json"))


@settings(max_examples=200)
@given(COMPLETIONS, COMPLETIONS)
def test_classes_that_are_accepted_can_be_trained_and_tested(train: list[Any], test: list[Any]) -> None:
    training, testing = dataset("train", train), dataset("test", test)
    with suppress(InvalidInput):
        training_jobs._check_classes(training, testing)
        _train_and_test(training, train, test)


def _train_and_test(training: Dataset, train: list[Any], test: list[Any]) -> None:
    """The first steps of training and testing, whose refusals fail the test."""
    rows = [{"prompt": "x", "labels": labels} for labels in (*train, *test)]
    task = task_of("classification", training.report, rows)
    try:
        examples(rows, task, TOKENIZER, 16)
    except InvalidInput as late:
        pytest.fail(f"found too late: {late}")
    # Every label that is to be found in testing can be learnt.
    marked = [{label for row in rows for label, value in row.items() if value} for rows in (train, test)]
    assert marked[1] <= marked[0]
