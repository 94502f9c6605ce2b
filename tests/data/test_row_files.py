"""Rows written as they are uploaded, each once."""

import json
from pathlib import Path
from typing import Any

import pytest

from emissary.data.normalise import normalise, read_normalised
from emissary.data.row_files import write_once

ROWS: dict[str, list[dict[str, Any]]] = {
    "text-generation": [
        {"prompt": "Grüße", "completion": "ja"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ],
    "classification": [{"prompt": "a", "completion": {"yes": 1, "no": 0}}, {"prompt": "a", "completion": {"no": 1}}],
    "regression": [{"prompt": "a", "completion": 1.5}, {"prompt": "a", "completion": 2.0}],
    "embedding": [
        {"itemA": {"text": "a"}, "itemB": {"text": "b"}, "similarity": similarity} for similarity in (0.5, -1.0)
    ],
}


@pytest.mark.parametrize("task_type", ROWS)
def test_rows_come_back_once_and_in_order(task_type: Any, tmp_path: Path) -> None:
    rows = ROWS[task_type]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *reversed(rows), rows[0]]))
    normalise(tmp_path / "rows.jsonl", "rows.jsonl", tmp_path / "rows.parquet")
    count = write_once(read_normalised(tmp_path / "rows.parquet"), task_type, tmp_path / "out.jsonl")
    assert count == 2
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows
