import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary.data.normalise import normalise, read_normalised
from emissary.data.records import SCHEMA
from emissary.errors import InvalidInput

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())
LABEL = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: text.strip())
TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": TEXT})
ROW = st.one_of(
    st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT}),
    st.fixed_dictionaries(
        {
            "messages": st.builds(
                lambda turns, last: [*turns, {"role": "assistant", "content": last}],
                st.lists(TURN, min_size=1, max_size=3),
                TEXT,
            )
        }
    ),
    st.fixed_dictionaries({"prompt": TEXT, "completion": st.dictionaries(LABEL, st.integers(0, 1), min_size=1)}),
    st.fixed_dictionaries({"prompt": TEXT, "completion": st.floats(-1e30, 1e30)}),
    st.fixed_dictionaries(
        {
            "itemA": st.fixed_dictionaries({"text": TEXT}),
            "itemB": st.fixed_dictionaries({"text": TEXT}),
            "similarity": st.floats(-1, 1),
        }
    ),
)


def uploaded(record: dict) -> dict:
    """The row that a normalised record was made of."""
    match record["kind"]:
        case "chat":
            return {"messages": record["messages"]}
        case "pair":
            items = {"itemA": {"text": record["text_a"]}, "itemB": {"text": record["text_b"]}}
            return items | {"similarity": record["similarity"]}
    target = (record[name] for name in ("completion", "labels", "target"))
    return {"prompt": record["prompt"], "completion": next(value for value in target if value is not None)}


def normalised(folder: Path, name: str, content: str) -> list[dict]:
    (folder / "upload").write_text(content, encoding="utf-8", newline="")
    normalise(folder / "upload", name, folder / "rows.parquet")
    assert pq.read_schema(folder / "rows.parquet").equals(SCHEMA)
    return list(read_normalised(folder / "rows.parquet"))


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(ROW, min_size=1, max_size=6), ascii_only=st.booleans())
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_what_is_uploaded_comes_back(name, rows, ascii_only):
    texts = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    content = "\n".join(texts) if name == "a.jsonl" else "[" + ",\t".join(texts) + "]"
    with TemporaryDirectory() as folder:
        assert [uploaded(record) for record in normalised(Path(folder), name, content)] == rows


def test_prompt_row_is_also_a_conversation(tmp_path):
    [record] = normalised(tmp_path, "a.jsonl", '{"prompt": "a", "completion": "b"}')
    assert record["kind"] == "prompt"
    assert (record["prompt"], record["completion"]) == ("a", "b")
    assert record["messages"] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def test_csv_number_is_text_and_target(tmp_path):
    [record] = normalised(tmp_path, "a.csv", "input,expected_output\na,3.50\n")
    assert (record["completion"], record["target"], record["labels"]) == ("3.50", 3.5, None)


def test_csv_label_object_is_text_and_labels(tmp_path):
    [record] = normalised(tmp_path, "a.csv", 'input,expected_output\na,"{""x"": 1, ""y"": 0}"\n')
    assert record["completion"] == '{"x": 1, "y": 0}'
    assert record["labels"] == {"x": 1, "y": 0}


def test_many_rows_are_written_in_several_row_groups_in_order(tmp_path):
    lines = [json.dumps({"prompt": "p" * 4000, "completion": str(index)}) for index in range(9000)]
    records = normalised(tmp_path, "a.jsonl", "\n".join(lines))
    assert [record["target"] for record in records] == list(range(9000))
    assert 1 < pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups < 9


def test_bad_row_is_named_and_nothing_is_left_behind(tmp_path):
    with pytest.raises(InvalidInput, match="Line 2: 'completion' is missing"):
        normalised(tmp_path, "a.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": "a"}')
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]


def test_package_is_light_to_import():
    code = (
        "import sys; from emissary.data import normalise, splitting, validation; "
        "print([m for m in ('torch', 'transformers', 'prefect', 'sqlalchemy', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
