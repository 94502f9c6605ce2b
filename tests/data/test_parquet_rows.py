import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emissary.data.reading import read_rows
from emissary.errors import InvalidInput


def test_rows_are_numbered_and_nulls_left_out(tmp_path):
    table = pa.table({"prompt": ["a", None], "completion": [{"x": 1, "y": None}, {"x": None, "y": 0}]})
    pq.write_table(table, tmp_path / "f")
    assert list(read_rows(tmp_path / "f", "f.parquet")) == [
        (1, {"prompt": "a", "completion": {"x": 1}}),
        (2, {"completion": {"y": 0}}),
    ]


def test_maps_decimals_and_lists_become_what_json_has(tmp_path):
    labels = pa.array([[("x", 1), ("y", 0)]], pa.map_(pa.string(), pa.int8()))
    similarity = pa.array([Decimal("0.50")])
    messages = pa.array([[{"role": "user", "content": "a"}]])
    table = pa.table({"completion": labels, "similarity": similarity, "messages": messages})
    pq.write_table(table, tmp_path / "f")
    [(_, row)] = read_rows(tmp_path / "f", "f.parquet")
    assert row == {
        "completion": {"x": 1, "y": 0},
        "similarity": 0.5,
        "messages": [{"role": "user", "content": "a"}],
    }


def test_columns_of_no_task_type_are_named_but_not_decoded(tmp_path):
    table = pa.table({"prompt": ["a"], "completion": ["b"], "seen": [datetime.datetime(2024, 1, 1)]})
    pq.write_table(table, tmp_path / "f")
    assert list(read_rows(tmp_path / "f", "f.parquet")) == [(1, {"prompt": "a", "completion": "b", "seen": None})]


def test_file_without_any_dataset_column_is_refused(tmp_path):
    pq.write_table(pa.table({"question": ["a"]}), tmp_path / "f")
    with pytest.raises(InvalidInput, match=r"none of the columns of a dataset \(completion, itemA"):
        list(read_rows(tmp_path / "f", "f.parquet"))


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_cut_off_file_is_refused(tmp_path, keep):
    pq.write_table(pa.table({"prompt": ["a" * 1000], "completion": ["b"]}), tmp_path / "f")
    data = (tmp_path / "f").read_bytes()
    (tmp_path / "f").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InvalidInput, match=r"cannot be read as Parquet: .+ Write it again"):
        list(read_rows(tmp_path / "f", "f.parquet"))


def test_text_named_parquet_is_refused(tmp_path):
    (tmp_path / "f").write_text('{"prompt": "a", "completion": "b"}')
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"):
        list(read_rows(tmp_path / "f", "f.parquet"))
