"""Folders that the `datasets` library reads, and what is said where there is none and no hub."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emissary.data.hub_datasets import export
from emissary.errors import InvalidInput, Unavailable

ROWS = [{"prompt": f"Question {index}?", "completion": {"yes": 1} if index % 2 else {"no": 1}} for index in range(5)]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def exported(source: Path | str, target: Path, **which: str) -> list[dict]:
    export(str(source), target, **which)
    return [json.loads(line) for line in target.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "save_to_disk"])
def test_folder_becomes_a_file_of_its_rows(tmp_path, kind):
    folder = tmp_path / "tickets"
    folder.mkdir()
    rows = [{"prompt": row["prompt"], "completion": "é,\n1", "id": 7} for row in ROWS]
    match kind:
        case "jsonl":
            (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        case "csv":
            datasets.Dataset.from_list(rows).to_csv(folder / "rows.csv")
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
        case "save_to_disk":
            datasets.Dataset.from_list(rows).save_to_disk(folder)
    wanted = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
    assert exported(folder, tmp_path / "out.jsonl") == wanted


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"id": 1, "input": "a", "expected_output": "b"}, {"prompt": "a", "completion": "b"}),
        ({"Input": "a", "EXPECTED_OUTPUT": "b"}, {"prompt": "a", "completion": "b"}),
        (
            {"text1": "a", "text2": "b", "score": 0.5},
            {"itemA": {"text": "a"}, "itemB": {"text": "b"}, "similarity": 0.5},
        ),
    ],
)
def test_columns_of_a_csv_dataset_become_the_fields_that_they_are_in_a_csv_alone(tmp_path, kind, row, wanted):
    folder = tmp_path / "tickets"
    folder.mkdir()
    if kind == "csv":
        datasets.Dataset.from_list([row]).to_csv(folder / "rows.csv")
    else:
        pq.write_table(pa.Table.from_pylist([row]), folder / "rows.parquet")
    assert exported(folder, tmp_path / "out.jsonl") == [wanted]


@pytest.mark.parametrize("saved", [True, False])
def test_labels_that_a_row_does_not_name_are_left_out(tmp_path, saved):
    folder = tmp_path / "tickets"
    if saved:
        datasets.Dataset.from_list(ROWS).save_to_disk(folder)
    else:
        folder.mkdir()
        (folder / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    assert exported(folder, tmp_path / "out.jsonl") == ROWS


def test_one_of_several_splits_is_named(tmp_path):
    parts = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:2])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "tickets")
    with pytest.raises(InvalidInput, match="has several splits; say which one: train, test"):
        export(str(tmp_path / "tickets"), tmp_path / "out.jsonl")
    with pytest.raises(InvalidInput, match="has no split 'dev'; say which one: train, test"):
        export(str(tmp_path / "tickets"), tmp_path / "out.jsonl", split="dev")
    assert exported(tmp_path / "tickets", tmp_path / "out.jsonl", split="test") == ROWS[:2]


def test_other_columns_an_empty_folder_and_damaged_rows_are_told(tmp_path):
    folder = tmp_path / "tickets"
    folder.mkdir()
    with pytest.raises(InvalidInput, match=r"cannot be read: .*data files"):
        export(str(folder), tmp_path / "out.jsonl")
    (folder / "train.csv").write_text("question,answer\na,b\n")
    with pytest.raises(InvalidInput, match="has the columns question, answer, and none that"):
        export(str(folder), tmp_path / "out.jsonl")
    (folder / "train.csv").unlink()
    (folder / "train.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(InvalidInput, match="cannot be read: "):
        export(str(folder), tmp_path / "out.jsonl")


def test_hub_that_is_not_reached_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        Unavailable, match=r"no file or folder owner/name, and the Hugging Face hub, .* cannot be reached"
    ):
        export("owner/name", tmp_path / "out.jsonl")
    with pytest.raises(InvalidInput, match="it is not the name of a dataset"):
        export("no/such/folder", tmp_path / "out.jsonl")
