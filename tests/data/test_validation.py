import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emissary.data.normalise import normalise, read_normalised
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
        "Line 1: 'completion' must be a number, and is text 'answer'. "
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


def test_of_many_small_classes_the_smallest_are_named_and_the_others_counted(tmp_path):
    rows = [marked(**{f"c{index}": 1}) for index in range(12) for _ in range(12 - index)]
    assert report(tmp_path, rows).warnings == [
        *(f"The class 'c{index}' has fewer than 20 rows ({12 - index})." for index in (11, 10, 9, 8, 7)),
        "… and 7 more classes have as few rows.",
    ]


def test_labels_that_differ_by_white_space_alone_are_named(tmp_path):
    rows = [marked(**{name: 1}) for name in ("a", "a ", "b", "c d", "c\u00a0d", "cd", "e") for _ in range(20)]
    assert report(tmp_path, rows).warnings == [
        "The labels 'a' and 'a ' differ by white space alone, and are learnt as different ones.",
        "The labels 'c d' and 'cd' and 'c\\xa0d' differ by white space alone, and are learnt as different ones.",
    ]
    many = [marked(**{f"{index}{space}": 1}) for index in range(10) for space in ("", " ") for _ in range(20)]
    assert report(tmp_path, many).warnings[-1] == "… and 5 more labels are written in such ways."
    assert len(report(tmp_path, many).warnings) == 6


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
    assert refusal(tmp_path, rows, "a.json").startswith("Row 1: 'completion' must be a number, and is text 'answer'.")


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


BAD = ["{", '{"prompt": "a"}', "5", '{"prompt": "a", "completion": 7}']


def test_unusable_rows_are_listed_with_line_and_reason(tmp_path):
    good = json.dumps(text(0))
    (tmp_path / "upload").write_text("\n".join([good, *BAD[:3], good]))
    with pytest.raises(InvalidInput) as raised:
        validate(tmp_path / "upload", "a.jsonl")
    assert raised.value.details == {
        "problems": [
            {"line": 2, "reason": "invalid JSON at column 2: expecting property name enclosed in double quotes"},
            {"line": 3, "reason": "'completion' is missing"},
            {"line": 4, "reason": 'the row is not a JSON object such as {"prompt": …}'},
        ],
        "problem_count": 3,
    }
    assert str(raised.value).startswith("Line 2: invalid JSON at column 2: ")


def test_a_hundred_unusable_rows_are_listed_and_all_counted(tmp_path):
    rows = [text(index) for index in range(1000)] + [{"prompt": "a"}] * 250
    with pytest.raises(InvalidInput) as raised:
        report(tmp_path, rows, "a.json")
    problems = raised.value.details["problems"]
    assert [problem["line"] for problem in problems] == list(range(1001, 1101))
    assert raised.value.details["problem_count"] == 250


def test_unusable_rows_are_left_out_where_that_is_asked_for(tmp_path):
    good = [json.dumps(marked(a=1)), json.dumps(marked(b=1)), json.dumps(marked(b=1))]
    (tmp_path / "upload").write_text("\n".join([good[0], *BAD, *good[1:]]))
    found = validate(tmp_path / "upload", "a.jsonl", "skip")
    assert (found.rows, found.skipped, found.on_invalid) == (3, 4, "skip")
    assert [problem.line for problem in found.problems] == [2, 3, 4, 5]
    assert found.problems[3].reason == (
        '\'completion\' must map labels to 0 or 1, as in {"food": 1, "sport": 0}, and is a number'
    )
    assert (found.compatible_task_types, found.class_counts) == (["classification"], {"a": 1, "b": 2})
    assert (found.duplicates, found.labels) == (1, ["a", "b"])
    normalise(tmp_path / "upload", "a.jsonl", tmp_path / "rows.parquet", found.compatible_task_types)
    assert [row["labels"] for row in read_normalised(tmp_path / "rows.parquet")] == [{"a": 1}, {"b": 1}, {"b": 1}]


TARGETS = st.floats(-1e30, 1e30).map(str) | st.integers(-99, 99).map(str)
NO_TARGETS = st.sampled_from(["NaN", "nan", "inf", "-Infinity", "n/a", "1,5", "five", "0x10", "1_000", "١"])


@given(st.lists(st.tuples(TARGETS, st.just(True)) | st.tuples(NO_TARGETS, st.just(False)), min_size=1, max_size=8))
@settings(deadline=None)
def test_targets_that_are_no_numbers_are_told_with_their_line_where_the_task_type_is_said(targets):
    wrong = [line for line, (_, is_number) in enumerate(targets, 2) if not is_number]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_text("input,expected_output\n" + "".join(f'a,"{target}"\n' for target, _ in targets))
        if not wrong:
            assert "regression" in validate(path, "a.csv", task_type="regression").compatible_task_types
            return
        with pytest.raises(InvalidInput, match=f"^Line {wrong[0]}: 'expected_output' must be a number") as raised:
            validate(path, "a.csv", task_type="regression")
        assert [problem["line"] for problem in raised.value.details["problems"]] == wrong
        if len(wrong) < len(targets):
            found = validate(path, "a.csv", "skip", task_type="regression")
            assert (found.rows, [problem.line for problem in found.problems]) == (len(targets) - len(wrong), wrong)
            normalise(path, "a.csv", Path(folder) / "rows.parquet", found.compatible_task_types)
            kept = [row["target"] for row in read_normalised(Path(folder) / "rows.parquet")]
            assert kept == [float(target) for target, is_number in targets if is_number]


def test_csv_row_with_a_column_missing_or_a_stray_quote_is_left_out_alone(tmp_path):
    rows = ["input,expected_output", "a,b", "c", '"d" e,f', "g,h,i", "j,k"]
    (tmp_path / "upload").write_text("\n".join(rows))
    found = validate(tmp_path / "upload", "a.csv", "skip")
    assert (found.rows, [problem.line for problem in found.problems]) == (2, [3, 4, 5])
    assert found.problems[0].reason.startswith("the row's number of fields is 1 and the header's is 2; ")
    assert found.problems[1].reason.startswith("the row that begins here is not valid CSV: ")


@pytest.mark.parametrize("lines", [BAD[:3], ["{}"], ["null"]])
def test_file_of_unusable_rows_alone_is_refused_also_where_they_may_be_left_out(tmp_path, lines):
    (tmp_path / "upload").write_text("\n".join(lines))
    with pytest.raises(InvalidInput, match=r"There is no row that can be used\. Line 1: ") as raised:
        validate(tmp_path / "upload", "a.jsonl", "skip")
    assert raised.value.details["problem_count"] == len(lines)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b'{"prompt": "a", "completion": "b"}\n\xff'), ("a.json", b"[{}, {]"), ("a.csv", b"a")],
)
def test_file_that_cannot_be_read_on_is_refused_also_where_rows_may_be_left_out(tmp_path, name, content):
    (tmp_path / "upload").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"offset|column"):
        validate(tmp_path / "upload", name, "skip")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "a", "completion": "high"}, "Line 31: 'completion' must be a number, and is text 'high'."),
        ({"prompt": "a", "completion": 10**400}, "Line 31: 'completion' must be a number, and is not finite."),
        ({"prompt": "a", "completion": True}, "Line 31: 'completion' must be a number, and is true or false."),
    ],
)
def test_target_that_is_no_number_is_named(tmp_path, row, sentence):
    rows = [{"prompt": "a", "completion": index / 7} for index in range(30)]
    assert refusal(tmp_path, [*rows, row, *rows]).startswith(sentence)


@given(
    similarities=st.lists(st.floats(-1, 1), min_size=1, max_size=30),
    outside=st.floats(1, exclude_min=True, allow_infinity=False) | st.floats(max_value=-1, exclude_max=True),
    at=st.integers(0, 30),
)
@settings(deadline=None, max_examples=40)
def test_similarity_outside_its_range_is_named(similarities, outside, at):
    assume(math.isfinite(outside))
    at = min(at, len(similarities))
    values = [*similarities[:at], outside, *similarities[at:]]
    rows = [{"itemA": {"text": "a"}, "itemB": {"text": "b"}, "similarity": value} for value in values]
    with TemporaryDirectory() as folder:
        sentence = f"Line {at + 1}: 'similarity' must be from -1 to 1, and is {outside!r}."
        assert refusal(Path(folder), rows).startswith(sentence)


@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 1), min_size=1), min_size=1, max_size=20),
    blank=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_first_line_of_each_label_is_where_it_is_one_or_else_named(rows, blank):
    # A row that also fits another task type is counted apart from the rest.
    uploaded = [{"prompt": "a", "completion": json.dumps(row) if index % 3 else row} for index, row in enumerate(rows)]
    content = ("\n" if blank else "") + "\n".join(map(json.dumps, uploaded))
    with TemporaryDirectory() as folder:
        (Path(folder) / "upload").write_text(content)
        found = validate(Path(folder) / "upload", "a.jsonl")
    lines = {}
    for wanted in ((1,), (0, 1)):
        for line, row in enumerate(rows, 1 + blank):
            lines |= {label: line for label, value in row.items() if value in wanted and label not in lines}
    assert found.label_lines == lines
    assert found.number_means == "Line"


def labelled(count: int) -> list:
    return [{"prompt": f"text {index}", "completion": {"common": 0, f"label {index}": 1}} for index in range(count)]


def test_more_labels_than_can_be_trained_are_refused_with_the_row_of_the_first_one_too_many(tmp_path):
    assert len(report(tmp_path, labelled(999)).labels) == 1000
    assert refusal(tmp_path, labelled(1005)) == (
        "Line 1000: 'label 999' is label number 1,001, and a classifier has at most 1,000. Of the file's 1,006 labels "
        "join rare ones, and upload again."
    )


def test_many_labels_are_refused_where_the_file_is_said_to_be_for_classification_only(tmp_path):
    rows = [row | {"completion": json.dumps(row["completion"])} for row in labelled(1005)]
    assert report(tmp_path, rows).compatible_task_types == ["text-generation", "classification"]
    with pytest.raises(InvalidInput, match=r"^Line 1000: 'label 999' is label number 1,001"):
        validate(tmp_path / "upload", "a.jsonl", task_type="classification")


@pytest.mark.parametrize("rows", [[marked(spam=1)] * 30, [marked(cat=1, dog=0)] * 30, [marked(spam=0)] * 30])
def test_one_class_alone_is_kept_and_said(tmp_path, rows):
    assert any("All rows are of one class" in said for said in report(tmp_path, rows).warnings)
    both = [*rows, *([marked(spam=0), marked(spam=1)] if "spam" in rows[0]["completion"] else [marked(cat=0, dog=1)])]
    assert not any("one class" in said for said in report(tmp_path, both).warnings)
