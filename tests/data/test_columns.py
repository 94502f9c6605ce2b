"""Reading in columns comes to the very same as reading row by row, in rows and in refusals."""

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from emissary.data import json_columns, reading, text, validation
from emissary.data.reading import read
from emissary.data.rows import FIELDS
from emissary.data.validation import validate
from emissary.errors import InvalidInput

SPACES = st.sampled_from(["", " ", "\n", "\t", "\u00a0", "\u2003", "\u3000", "\x85", "\x1f", "\u200b"])
NUMBERS = st.sampled_from(
    [
        "0",
        "-0",
        "1",
        "0.5",
        "1.0",
        "1e3",
        "-1",
        "2",
        "1e30",
        "-1e31",
        "1e999",
        "12345678901234567890",
        "01",
        "1.",
        ".5",
        "+1",
        "1_0",
        "-",
    ]
) | st.floats(-1, 1).map(repr)
LABELS_SAID = st.sampled_from(['{"x": 1}', '{"x": 1, "y": 0}', '{"x": 2}', "{}", '{"x": NaN}', "{x}"])
TEXT = st.one_of(
    st.sampled_from(
        ["a", "Hello.", "é", "日本", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "\0"]
    ),
    st.builds(lambda before, inner, after: before + inner + after, SPACES, NUMBERS | LABELS_SAID | SPACES, SPACES),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
LABEL = st.sampled_from(["x", "y", "z", " ", "", "\t", "prompt", "é"])
MARKS = st.dictionaries(LABEL, st.sampled_from([0, 1, 1, 0, 0.0, 1.0, True, False, 2, None, "1"]), max_size=3)
SCORE = st.one_of(
    st.floats(-1, 1), st.integers(-2, 2), NUMBERS, st.sampled_from([None, True, 1e30, -1e31, 1e300, 10**400, 2**70])
)
TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "assistant", "system", "boss", None, 5]),
        "content": TEXT | st.none(),
    },
    optional={"name": TEXT},
)
EXTRA = {
    "id": st.integers(-1, 3),
    "note": st.none() | TEXT | st.integers(0, 1) | st.lists(st.integers(0, 1), max_size=2),
}


ODD = ["", "{", "}", "}{", "},{", '"', ",", "null", "NaN", "Infinity", "\\ud800", "\\u0000", "[", "]", "//", "tru"]
ODD += ["\n", "\r", " ", "\x01", "\ufeff"]
ODD += ['{"prompt": "a", "completion": "b"}', '"prompt": "a",']


def shape(**fields: st.SearchStrategy) -> st.SearchStrategy:
    return st.fixed_dictionaries(fields, optional=EXTRA)


ITEM = st.fixed_dictionaries({"text": TEXT}, optional={"lang": TEXT}) | st.sampled_from([{}, None, "a", {"text": None}])
SHAPES = [
    shape(prompt=TEXT, completion=TEXT),
    shape(prompt=TEXT, completion=NUMBERS | LABELS_SAID),
    shape(prompt=TEXT, completion=MARKS),
    shape(prompt=TEXT, completion=SCORE),
    shape(messages=st.lists(TURN, max_size=3)),
    shape(itemA=ITEM, itemB=ITEM, similarity=SCORE),
]
ANY = st.one_of(
    *SHAPES, st.just({}), st.dictionaries(st.sampled_from(["prompt", "completion", "messages", "id"]), TEXT)
)


WEIRD = st.sampled_from(
    [
        [],
        {},
        True,
        0,
        "a",
        [None],
        [["text", "a"]],
        [["role", "user"], ["content", "a"]],
        {"role": "user"},
        {"text": "a"},
    ]
)
NAMES = st.sampled_from(["prompt", "completion", "messages", "itemA", "similarity", "id"])


@st.composite
def rows_of_a_shape(draw: st.DrawFn, *others: st.SearchStrategy) -> list[dict]:
    """Rows of one shape, a few of them with a field that is of another kind."""
    row = st.one_of(draw(st.sampled_from(SHAPES)), *others)
    rows = draw(st.lists(row, max_size=8))
    if rows and draw(st.booleans()):
        index = draw(st.integers(0, len(rows) - 1))
        name = draw(st.sampled_from(sorted(rows[index])) if rows[index] and draw(st.booleans()) else NAMES)
        rows[index] = rows[index] | {name: draw(WEIRD)}
    return rows


def written(row: dict, ascii_only: bool, spaced: bool) -> str:
    return json.dumps(row, ensure_ascii=ascii_only, separators=None if spaced else (",", ":"))


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Lines of one shape, with a few others and damaged ones among them."""
    rows = draw(rows_of_a_shape(*([ANY] if draw(st.booleans()) else [])))
    found = [written(row, draw(st.booleans()), draw(st.booleans())) for row in rows]
    for _ in range(draw(st.integers(0, 2)) if found and draw(st.booleans()) else 0):
        index = draw(st.integers(0, len(found) - 1))
        line = found[index]
        at = draw(st.integers(0, len(line)))
        odd = st.sampled_from(ODD)
        found[index] = line[:at] + draw(odd) + line[at + draw(st.integers(0, 2)) :]
    return found


def outcome(path: Path, name: str) -> list:
    """All that comes of reading the file."""
    found: list = []
    try:
        names: set[str] = set()
        for chunk in read(path, name):
            names |= chunk.names
            records = chunk.records.to_pylist()
            for record in records:
                if record["labels"]:
                    record["labels"].sort(key=lambda pair: pair["label"])
            rows = zip(chunk.numbers.tolist(), records, strict=True)
            found += sorted([*rows, *chunk.unusable], key=lambda entry: entry[0])
        found.append(names - FIELDS)
        found.append(validate(path, name))
    except InvalidInput as error:
        found.append((str(error), error.details))
    return found


def by_row(path: Path, name: str) -> list:
    with patch.object(reading, "normalised", lambda _: None):
        return outcome(path, name)


def in_columns(path: Path, name: str, block_bytes: int) -> tuple[list, bool]:
    """The same, and whether any block was parsed in columns."""
    parsed = []

    def parse(*arguments: object) -> pa.RecordBatch | None:
        parsed.append(whole(*arguments))
        return parsed[-1]

    whole = json_columns.parse
    with ExitStack() as stack:
        stack.enter_context(patch.object(text, "BLOCK_BYTES", block_bytes))
        stack.enter_context(patch.object(reading, "_SMALL_BYTES", 32))
        stack.enter_context(patch.object(json_columns, "parse", parse))
        found = outcome(path, name)
    return found, any(batch is not None for batch in parsed)


@settings(deadline=None, max_examples=150)
@given(lines=lines(), line_end=st.sampled_from(["\n", "\r\n", "\n\n"]), block_bytes=st.sampled_from([16, 100, 10_000]))
def test_json_lines(lines, line_end, block_bytes):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(line_end.join(lines).encode(errors="surrogatepass"))
        found, parsed = in_columns(path, "a.jsonl", block_bytes)
        event("in columns" if parsed else "by row")
        assert found == by_row(path, "a.jsonl")


@settings(deadline=None, max_examples=60)
@given(rows=rows_of_a_shape() | rows_of_a_shape(ANY))
def test_json_array(rows):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(rows))
        assert outcome(path, "a.json") == by_row(path, "a.json")


@settings(deadline=None, max_examples=60)
@given(rows=rows_of_a_shape())
def test_parquet(rows):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        try:
            pq.write_table(pa.table({name: [row.get(name) for row in rows] for row in rows for name in row}), path)
        except (pa.ArrowException, TypeError, OverflowError):
            return  # no Parquet has such rows
        assert outcome(path, "a.parquet") == by_row(path, "a.parquet")


def test_plain_rows_are_read_in_columns_and_one_bad_row_costs_only_its_neighbours(tmp_path):
    rows = [json.dumps({"prompt": f"Question {index}", "completion": "yes " * 20}) for index in range(20_000)]
    rows[7_000] = rows[7_000][:-1]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    with patch.object(reading, "batch_of", wraps=reading.batch_of) as row_by_row:
        chunks = list(read(tmp_path / "a.jsonl", "a.jsonl"))
    assert sum(chunk.records.num_rows for chunk in chunks) == 19_999
    assert [number for chunk in chunks for number, _ in chunk.unusable] == [7_001]
    assert sum(len(call.args[0]) for call in row_by_row.call_args_list) < 1_000


@pytest.mark.parametrize("first", ["plain", "wide"])
def test_fields_are_not_learnt_again_once_there_are_too_many(tmp_path, first):
    wide = {"prompt": "a", "completion": {f"label {index}": index % 2 for index in range(2_000)}}
    plain = {"prompt": "a", "completion": {"label 1": 1}}
    rows = [plain] * 2_000 * (first == "plain") + [wide] * 200 + [plain] * 2_000
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with (
        patch.object(pa, "infer_type", wraps=pa.infer_type) as inferred,
        patch.object(reading, "batch_of", wraps=reading.batch_of) as row_by_row,
        patch.object(validation, "MAX_LABELS", 2_000),
    ):
        found = validate(tmp_path / "a.jsonl", "a.jsonl")
    assert (found.rows, len(found.labels)) == (len(rows), 2_000)
    assert sum(len(str(call.args[0][-1])) > 2_000 for call in inferred.call_args_list) <= reading._THREADS + 1
    if first == "plain":
        assert sum(len(call.args[0]) for call in row_by_row.call_args_list) < 3_000


@pytest.mark.parametrize("line", ["null", "{}null", '{"prompt": "a", "completion": "b"}null', "[null]"])
def test_lines_on_which_pyarrow_stumbles_are_refused(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' + f"{line}\n" * 3)
    with pytest.raises(InvalidInput, match="Line 2: "):
        validate(tmp_path / "a.jsonl", "a.jsonl")


TEXTS, MARKED = {"prompt": "a", "completion": "b", "id": 1.5}, {"prompt": "a", "completion": {"x": 1, "y": 0}}
LOOSE = [
    (TEXTS, '{"prompt": "a", "completion": "b", "id": NaN}'),
    (TEXTS, '{"prompt": "a", "completion": "b", "id": -Infinity}'),
    (TEXTS, '{"prompt": "a", "completion": "b"} {"prompt": "c", "completion": "d"}'),
    (TEXTS, '{"prompt": "a", "completion": "b", "prompt": "c"}'),
    (TEXTS, '{"prompt": "a", "completion": "b", "id": "1"}'),
    (MARKED, '{"prompt": "a", "completion": {"x": 1, "y": null}}'),
    (MARKED, '{"prompt": "a", "completion": {"x": 1, "y": 0.5}}'),
    ({"prompt": "a", "completion": 1.5}, '{"prompt": "a", "completion": true}'),
    ({"prompt": "a", "completion": 1.5}, '{"prompt": "a", "completion": NaN}'),
    ({"prompt": "a", "completion": 1.5}, '{"prompt": "a", "completion": 1e400}'),
]


@pytest.mark.parametrize(("row", "line"), LOOSE)
def test_what_pyarrow_reads_more_loosely_is_read_by_row(tmp_path, row, line):
    plain = json.dumps(row)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([plain] * 5 + [line] + [plain] * 5))
    found, parsed = in_columns(path, "a.jsonl", 10_000)
    assert parsed
    assert found == by_row(path, "a.jsonl")
