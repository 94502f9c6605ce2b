import json
from pathlib import Path

import pytest

from emissary.data.validation import DatasetReport, validate
from emissary.errors import InvalidInput


def report(tmp_path: Path, rows: list, name: str = "a.jsonl") -> DatasetReport:
    path = tmp_path / "upload"
    text = "\n".join(map(json.dumps, rows)) if name == "a.jsonl" else json.dumps(rows)
    path.write_text(text)
    return validate(path, name)


def refusal(tmp_path: Path, rows: list, name: str = "a.jsonl") -> str:
    with pytest.raises(InvalidInput) as raised:
        report(tmp_path, rows, name)
    return str(raised.value)


def marked(**completion: int) -> dict:
    return {"prompt": "a", "completion": completion}


def text(index: int) -> dict:
    return {"prompt": f"question {index}", "completion": "answer"}


def test_text_rows_are_counted_and_nothing_is_wrong(tmp_path):
    found = report(tmp_path, [text(index) for index in range(10)])
    assert found.rows == 10
    assert found.compatible_task_types == ["text-generation"]
    assert (found.label_kind, found.class_counts, found.duplicates, found.warnings) == (None, {}, 0, [])
    assert found.misfits["regression"] == (
        "Line 1: 'completion' must be a number, and is text. "
        "9 more rows do not fit regression (lines 2, 3, 4, 5, 6, …)."
    )


def test_duplicates_are_counted_whatever_the_order_of_fields(tmp_path):
    rows = [text(0), dict(reversed(text(0).items())), text(0) | {"messages": None, "id": 7}, text(1)]
    assert report(tmp_path, rows).duplicates == 2


def test_small_dataset_and_unused_fields_are_warned_about(tmp_path):
    assert report(tmp_path, [text(0) | {"weight": 2}]).warnings == [
        "The dataset has fewer than 10 rows (1), too few to learn much from.",
        "Fields that no task type reads are left out: 'weight'.",
    ]


def test_one_label_is_binary(tmp_path):
    found = report(tmp_path, [marked(urgent=1)] * 25 + [marked(urgent=0)] * 5)
    assert found.compatible_task_types == ["classification"]
    assert found.label_kind == "binary"
    assert found.class_counts == {"positive": 25, "negative": 5}
    assert found.warnings == ["The class 'negative' has fewer than 20 rows (5)."]


def test_exactly_one_label_in_every_row_is_multiclass(tmp_path):
    found = report(tmp_path, [marked(a=1, b=0)] * 20 + [marked(b=1)] * 20)
    assert (found.label_kind, found.class_counts) == ("multiclass", {"a": 20, "b": 20})
    assert found.warnings == []


@pytest.mark.parametrize("row", [marked(a=1, b=1), marked(a=0, b=0)])
def test_other_labels_are_multilabel(tmp_path, row):
    assert report(tmp_path, [marked(a=1, b=0)] * 20 + [row]).label_kind == "multilabel"


@pytest.mark.parametrize(
    ("cells", "task_types"),
    [
        (["3", "4.5"], ["text-generation", "regression"]),
        (["3", "four"], ["text-generation"]),
        (['"{""a"": 1}"', '"{""a"": 0}"'], ["text-generation", "classification"]),
    ],
)
def test_csv_cells_fit_what_they_say(tmp_path, cells, task_types):
    (tmp_path / "upload").write_text("input,expected_output\n" + "".join(f"a,{cell}\n" for cell in cells))
    assert validate(tmp_path / "upload", "a.csv").compatible_task_types == task_types


def test_rows_that_do_not_fit_are_named(tmp_path):
    rows = [text(0), {"prompt": "a"}, text(1), {"prompt": "", "completion": "b"}]
    assert refusal(tmp_path, rows) == (
        "Line 2: 'completion' is missing. 1 more row does not fit text-generation (line 4). "
        "Correct or remove such rows and upload again, or have them left out (on_invalid: skip)."
    )


def test_task_type_that_most_rows_fit_is_the_one_spoken_of(tmp_path):
    rows = [text(0), {"prompt": "a", "completion": 1}, {"prompt": "a", "completion": 2}]
    assert refusal(tmp_path, rows, "a.json").startswith("Row 1: 'completion' must be a number, and is text.")


def test_where_no_row_fits_the_fields_say_what_was_meant(tmp_path):
    row = {"itemA": {"text": "a"}, "itemB": {"text": "b"}, "similarity": 5}
    assert refusal(tmp_path, [row]).startswith("Line 1: 'similarity' must be from -1 to 1, and is 5.")


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", "\n \n"), ("a.json", "[]"), ("a.csv", "input,expected_output")]
)
def test_file_without_rows_is_refused(tmp_path, name, content):
    (tmp_path / "upload").write_text(content)
    with pytest.raises(InvalidInput, match="The file has no rows"):
        validate(tmp_path / "upload", name)
