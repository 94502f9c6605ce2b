import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emissary.data.reading import read
from emissary.data.validation import validate
from emissary.errors import InvalidInput
from tests.data.uploaded import uploaded_rows

LABELS = pa.map_(pa.string(), pa.int8())


def test_rows_are_numbered_and_nulls_left_out(tmp_path):
    table = pa.table({"prompt": ["a", None], "completion": [{"x": 1, "y": None}, {"x": None, "y": 0}]})
    pq.write_table(table, tmp_path / "f")
    assert uploaded_rows(tmp_path / "f", "f.parquet") == [
        (1, {"prompt": "a", "completion": {"x": 1}}),
        (2, {"completion": {"y": 0}}),
    ]


def test_maps_decimals_and_lists_become_what_json_has(tmp_path):
    labels = pa.array([[("x", 1), ("y", 0)]], LABELS)
    similarity = pa.array([Decimal("0.50")])
    messages = pa.array([[{"role": "user", "content": "a"}]])
    table = pa.table({"completion": labels, "similarity": similarity, "messages": messages})
    pq.write_table(table, tmp_path / "f")
    [(_, row)] = uploaded_rows(tmp_path / "f", "f.parquet")
    assert row == {
        "completion": {"x": 1, "y": 0},
        "similarity": 0.5,
        "messages": [{"role": "user", "content": "a"}],
    }


@pytest.mark.parametrize("completion", ["b", None])
def test_columns_of_no_task_type_are_named_but_not_decoded(tmp_path, completion):
    table = pa.table({"prompt": ["a"], "completion": [completion], "seen": [datetime.datetime(2024, 1, 1)]})
    pq.write_table(table, tmp_path / "f")
    [chunk] = read(tmp_path / "f", "f.parquet")
    assert "seen" in chunk.names
    [(_, row)] = uploaded_rows(tmp_path / "f", "f.parquet")
    assert "seen" not in row


def test_file_without_any_dataset_column_is_refused(tmp_path):
    pq.write_table(pa.table({"question": ["a"]}), tmp_path / "f")
    with pytest.raises(InvalidInput, match=r"none of the columns of a dataset \(completion, itemA"):
        uploaded_rows(tmp_path / "f", "f.parquet")


def test_map_with_a_key_twice_is_a_row_that_can_be_left_out(tmp_path):
    maps = [[("x", 1)], [("x", 1), ("y", 0), ("x", 0)], [("y", 1)], [("z", 1), ("z", 1)]]
    pq.write_table(pa.table({"prompt": list("abcd"), "completion": pa.array(maps, LABELS)}), tmp_path / "f")
    report = validate(tmp_path / "f", "f.parquet", "skip")
    assert (report.rows, report.labels, report.number_means) == (2, ["x", "y"], "Row")
    assert [(found.line, found.reason) for found in report.problems] == [
        (2, "'completion' has a key twice"),
        (4, "'completion' has a key twice"),
    ]
    with pytest.raises(InvalidInput, match="Row 2: 'completion' has a key twice"):
        validate(tmp_path / "f", "f.parquet")


def test_column_that_is_there_twice_is_named(tmp_path):
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])]
    pq.write_table(pa.Table.from_arrays(columns, ["prompt", "completion", "prompt"]), tmp_path / "f")
    with pytest.raises(InvalidInput, match=r"The Parquet file has the column 'prompt' more than once\. Write it once"):
        uploaded_rows(tmp_path / "f", "f.parquet")


def test_column_of_no_task_type_may_be_there_twice(tmp_path):
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array(["c"]), pa.array(["d"])]
    pq.write_table(pa.Table.from_arrays(columns, ["prompt", "id", "completion", "id"]), tmp_path / "f")
    assert uploaded_rows(tmp_path / "f", "f.parquet") == [(1, {"prompt": "a", "completion": "c"})]


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_cut_off_file_is_refused(tmp_path, keep):
    pq.write_table(pa.table({"prompt": ["a" * 1000], "completion": ["b"]}), tmp_path / "f")
    data = (tmp_path / "f").read_bytes()
    (tmp_path / "f").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InvalidInput, match=r"cannot be read as Parquet: .+ Write it again"):
        uploaded_rows(tmp_path / "f", "f.parquet")


@pytest.mark.parametrize("content", [b"PA", b"\x00PAR1", b"Some text.\n"])
def test_what_is_no_parquet_is_refused(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"):
        uploaded_rows(tmp_path / "f", "f.parquet")


@pytest.mark.parametrize("nested", [False, True])
def test_one_value_in_very_many_rows_is_refused_like_another_archive_bomb(tmp_path, nested):
    column = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0), 1000), ["x" * 100_000])
    item = pa.StructArray.from_arrays([column], ["text"])
    columns = {"itemA": item, "itemB": item} if nested else {"prompt": column, "completion": column}
    pq.write_table(pa.table(columns), tmp_path / "f")
    assert (tmp_path / "f").stat().st_size < 100_000
    with pytest.raises(InvalidInput, match=r"The Parquet file unpacks to more than 64 MiB, 200 times its packed size"):
        uploaded_rows(tmp_path / "f", "f.parquet")


TURN = pa.struct([("role", pa.string()), ("content", pa.string())])


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("prompt", pa.list_(pa.string()), "text"),
        ("prompt", pa.struct([("text", pa.string())]), "text"),
        ("prompt", pa.int32(), "text"),
        ("completion", pa.list_(pa.float32()), "text, a number, or a map or struct of labels"),
        ("completion", pa.timestamp("s"), "text, a number, or a map or struct of labels"),
        ("messages", pa.list_(pa.list_(TURN)), "a list of structs with role and content"),
        ("messages", TURN, "a list of structs with role and content"),
        ("itemA", pa.string(), "a struct with text"),
        ("similarity", pa.list_(pa.float64()), "a number"),
    ],
)
def test_column_of_a_type_that_no_row_has_is_named_with_its_type(tmp_path, name, kind, wanted):
    pq.write_table(pa.table({"id": [1], name: pa.nulls(1, kind)}), tmp_path / "f")
    with pytest.raises(InvalidInput) as raised:
        uploaded_rows(tmp_path / "f", "f.parquet")
    assert f"The column {name!r} of the Parquet file has the type " in str(raised.value)
    assert str(raised.value).endswith(f"; it must be {wanted}.")
