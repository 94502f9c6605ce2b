"""Uploaded files as rows: JSON Lines, JSON arrays and CSV."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary.data import json_rows, text
from emissary.data.text import PIECE_BYTES
from emissary.data.validation import validate
from emissary.errors import InvalidInput
from tests.data.uploaded import uploaded_rows

ROW = {"prompt": "Hi", "completion": "Hello"}


def read(tmp_path: Path, name: str, content: bytes | str) -> list[tuple[int, dict]]:
    path = tmp_path / "upload"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return uploaded_rows(path, name)


def refusal(tmp_path: Path, name: str, content: bytes | str) -> str:
    with pytest.raises(InvalidInput) as raised:
        read(tmp_path, name, content)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"prompt": "Hi", "completion": "Hello"}\n'),
        ("a.JSONL", '{"prompt": "Hi", "completion": "Hello"}'),
        ("a.json", '[{"prompt": "Hi", "completion": "Hello"}]'),
        ("a.json", '[\r\n  {\r\n "prompt": "Hi",\r\n "completion": "Hello"}\r\n]\r\n'),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_json_formats_are_read_with_and_without_byte_order_mark(tmp_path, name, content, mark):
    assert read(tmp_path, name, mark + content.encode()) == [(1, ROW)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"prompt": "Hi", "completion": "日本"}\n'),
        ("a.json", '[{"prompt": "Hi", "completion": "日本"}]'),
        ("a.csv", "input,expected_output\nHi,日本\n"),
    ],
)
def test_utf16_is_read_with_and_without_byte_order_mark(tmp_path, name, content, encoding):
    assert read(tmp_path, name, content.encode(encoding)) == [
        (2 if name == "a.csv" else 1, {"prompt": "Hi", "completion": "日本"})
    ]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_blank_jsonl_lines_are_skipped_and_still_counted(tmp_path, line_end):
    content = line_end.join(["", json.dumps(ROW), "  ", json.dumps(ROW), ""])
    assert read(tmp_path, "a.jsonl", content) == [(2, ROW), (4, ROW)]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x1e"])
def test_unicode_line_separators_do_not_end_a_line(tmp_path, character):
    row = {"prompt": f"a{character}b", "completion": "c"}
    if character >= " ":
        assert read(tmp_path, "a.jsonl", json.dumps(row, ensure_ascii=False)) == [(1, row)]
    assert read(tmp_path, "a.csv", f"input,expected_output\n{row['prompt']},c\n") == [(2, row)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_characters_and_rows_that_straddle_pieces_are_read_whole(tmp_path, name):
    rows = [{"prompt": "€" * (PIECE_BYTES // 2 + i), "completion": str(i)} for i in range(3)]
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    content = {
        "a.jsonl": "\n".join(texts),
        "a.json": f"[{', '.join(texts)}]",
        "a.csv": "input,expected_output\n" + "".join(f"{r['prompt']},{r['completion']}\n" for r in rows),
    }[name]
    assert [row for _, row in read(tmp_path, name, content)] == rows


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "a.txt",
            "x",
            "has the extension '.txt'; supported are .jsonl, .ndjson, .json, .csv, .tsv and .parquet, packed",
        ),
        ("a.txt.gz", "x", "has the extension '.txt'"),
        (".gz", "x", "has no extension"),
        ("data", "x", "has no extension; supported are"),
        ("a.jsonl", b"", "The file is empty."),
        ("a.jsonl", b'{"prompt": "\xff"}', "not UTF-8 text: the byte at offset 12 is not valid"),
        ("a.jsonl", b"\xef\xbb\xbf{}\n\xff", "the byte at offset 6 is not valid"),
        ("a.json", b'[{"\xe2\x82', "the byte at offset 3 is not valid"),
        ("a.csv", "input,\0".encode("utf-16-be"), "not UTF-16 text, though it begins like it: the bytes at offset 12"),
        ("a.csv", "input\n\0".encode("utf-16"), "not UTF-16 text, though it begins like it: the bytes at offset 14"),
        ("a.csv", "in€".encode("utf-16") + b"\x00\xdcab", "the bytes at offset 8 are not valid"),
        ("a.csv", "input".encode("utf-16") + b"x", "the bytes at offset 12 are not valid"),
        ("a.csv", b"in\0put", "not text: there is a NUL byte at offset 2"),
        ("a.jsonl", '{"a": 1}\n\n{"a": 1,}\n', "Line 3: invalid JSON at column 9: "),
        ("a.jsonl", '{"a" 1}', "Line 1: invalid JSON at column 6: expecting ':' delimiter."),
        ("a.jsonl", '{"a": 1} {"a": 2}', "Line 1: invalid JSON at column 10: extra data."),
        (
            "a.jsonl",
            '{"prompt": "a", "completion": "b", "prompt": "c"}',
            "the key 'prompt' is there more than once in an",
        ),
        ("a.json", '[{"prompt": "a", "completion": {"x": 1, "y": 0, "x": 0}}]', "Row 1: invalid JSON: the key 'x' is"),
        ("a.jsonl", '{"a": 1}\n{"a": NaN}', "Line 2: invalid JSON: NaN is not a JSON value."),
        ("a.jsonl", '{"a": -Infinity}', "Line 1: invalid JSON: -Infinity is not a JSON value."),
        ("a.jsonl", r'{"a": "\ud83d"}', "Line 1: invalid JSON: a \\u escape is half of a surrogate pair."),
        ("a.jsonl", '{"a": ' + "[" * 100_000, "Line 1: invalid JSON: it is nested too deeply."),
        ("a.jsonl", '{"a": ' + "1" * 5_000 + "}", "Line 1: invalid JSON: a number has too many digits."),
        ("a.jsonl", '{"a": 1}\n[1]\n', "Line 2: the row is not a JSON object"),
        ("a.json", '{\n"a": 1}\n', "Line 1, column 1: the file is not a JSON array of rows."),
        ("a.json", " \n ", "the file is not a JSON array"),
        ("a.json", '[{"a": 1},\n 5]', "Row 2: the row is not a JSON object"),
        ("a.json", '[{"a": 1},, {}]', "Line 1, column 11: row 2 is not a JSON object"),
        ("a.json", '[{"a": 1}, {"a": NaN, x}]', "Line 1, column 23: invalid JSON: expecting property name"),
        ("a.json", '[{"a": ' + "[" * 100_000, "Line 1, column 2: invalid JSON in the row that begins here: it is nest"),
        ("a.json", '[{"a": 1},\n]', "Line 2, column 1: row 2 is not a JSON object"),
        (
            "a.json",
            '[\n{"a": 1}\n{"a": 2}]',
            "Line 3, column 1: invalid JSON: expecting ',' or ']' after row 1.",
        ),
        (
            "a.json",
            '[{"a": 1}',
            "Line 1, column 10: invalid JSON: expecting ',' or ']' after row 1. Is the file cut",
        ),
        ("a.json", '[{"a": 1},\n{"a": tru', "Line 2, column 7: invalid JSON: expecting value."),
        ("a.json", '[{"a": "b\n', "Line 1, column 10: invalid JSON: invalid control character."),
        (
            "a.json",
            '[{"a": 1}] []',
            "Line 1, column 12: invalid JSON: there is more text after the array's end.",
        ),
        (
            "a.json",
            '[{},\n{"a": NaN}]',
            "Row 2: invalid JSON: NaN is not a JSON value.",
        ),
        ("a.csv", "\n\n", "the CSV header has no column 'input' and no column 'expected_output'"),
        (
            "a.csv",
            "input,output\na,b\n",
            "Line 1: the CSV header has no column 'expected_output'. It must be",
        ),
        ("a.csv", "text1,text2\na,b\n", "Line 1: the CSV header has no column 'score'."),
        ("a.csv", "input,input,expected_output\n", "names the column 'input' more than once"),
        (
            "a.csv",
            'input,expected_output\n"a\nb",c\nx\n1,2,3\n',
            "Line 4: the row's number of fields is 1 and the header's is 2;",
        ),
        (
            "a.csv",
            'input,expected_output\na,"b\nc\n',
            "Line 2: the row that begins here is not valid CSV: unexpected",
        ),
        ("a.csv", 'input,expected_output\na,"b"c\n', "Line 2: the row that begins here is not valid CSV"),
    ],
)
def test_bad_file_is_refused_with_a_sentence_that_says_where(tmp_path, name, content, sentence):
    assert sentence in refusal(tmp_path, name, content)


def test_json_array_error_behind_the_first_piece_has_the_right_place(tmp_path):
    filler = json.dumps({"a": "x" * 3000})
    one_line = "[" + f"{filler}," * 1000
    assert f"Line 1, column {len(one_line) + 7}: " in refusal(tmp_path, "a.json", one_line + '{"a" :x}]')
    many_lines = "[\n" + f"{filler},\n" * 1000
    assert "Line 1002, column 7: " in refusal(tmp_path, "a.json", many_lines + '{"a" :x}]')


@pytest.mark.parametrize(("name", "start"), [("a.jsonl", "{}\n{"), ("a.json", "[{},\n{"), ("a.csv", "input\n")])
def test_row_without_an_end_is_not_held_in_memory(tmp_path, monkeypatch, name, start):
    for module in (text, json_rows):
        monkeypatch.setattr(module, "MOST_ROW_BYTES", 3 << 20)
    content = start + '"a": "' + "x" * (8 << 20)
    assert re.search("Line 2.* longer than 3 MiB", refusal(tmp_path, name, content))


ODD_ROWS = ["5", "-1.5e300", "null", "true", '"a"', "[]", '[{"prompt": "a"}]', "NaN", "-Infinity", "9" * 5_000]
ODD_ROWS += ['{"prompt": NaN}', '{"prompt": "a", "completion": [Infinity, "]"]}', r'{"prompt": "\ud83d"}', r'"\udc00"']
ODD_ROWS += ['{"prompt": "a"}', "{}", '{"prompt": ' + "1" * 5_000 + "}"]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.sampled_from([json.dumps(ROW), *ODD_ROWS]), min_size=1, max_size=12),
    gap=st.sampled_from([",", " ,\n"]),
    piece_bytes=st.integers(1, 40),
)
def test_array_and_lines_of_the_same_rows_have_the_same_bad_rows(rows, gap, piece_bytes):
    found = []
    rows = [json.dumps(ROW), *rows]  # so that both files begin as what they are
    with TemporaryDirectory() as folder, patch.object(text, "PIECE_BYTES", piece_bytes):
        for name, content in (("a.jsonl", "\n".join(rows)), ("a.json", f"[{gap.join(rows)}]")):
            path = Path(folder) / name
            path.write_text(content)
            report = validate(path, name, "skip")
            found.append((report.rows, report.skipped, report.problems, report.duplicates))
    assert found[0] == found[1]


def test_json_array_may_be_empty(tmp_path):
    assert read(tmp_path, "a.json", " [ ] ") == []


def test_csv_prompt_columns_become_prompt_and_completion(tmp_path):
    content = '\ufeffexpected_output, input ,note\r\n"say ""hi""","a, b\r\nc",n\r\n\r\n3.5,d,\r\n'
    assert read(tmp_path, "a.csv", content) == [
        (2, {"prompt": "a, b\r\nc", "completion": 'say "hi"', "note": "n"}),
        (5, {"prompt": "d", "completion": "3.5", "note": ""}),
    ]


def test_csv_pair_columns_become_items_and_similarity(tmp_path):
    assert read(tmp_path, "a.csv", "text1,text2,score\na,b,0.5\n") == [
        (2, {"itemA": {"text": "a"}, "itemB": {"text": "b"}, "similarity": "0.5"})
    ]


def test_csv_cell_may_be_a_long_document(tmp_path):
    [(_, row)] = read(tmp_path, "a.csv", f"input,expected_output\n{'x' * 300_000},y\n")
    assert len(row["prompt"]) == 300_000


@pytest.mark.parametrize(
    ("text", "task_type", "said"),
    [
        ("input,expected_output\na,\n", "text-generation", "'expected_output' is empty"),
        ("input,expected_output\n,b\n", "text-generation", "'input' is empty"),
        ("input,expected_output\na,b\n", "regression", "'expected_output' must be a number, and is text"),
        ('input,expected_output\na,"{""prompt"": 2}"\n', "classification", "'expected_output' must map"),
        ("text1,text2,score\na,b,2\n", "embedding", "'score' must be from -1 to 1, and is 2"),
        ("text1,text2,score\na,,1\n", "embedding", "'text2' is empty"),
    ],
)
def test_problem_of_a_csv_row_names_the_column_that_the_file_has(
    tmp_path: Path, text: str, task_type: Any, said: str
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InvalidInput, match=f"^(There is no row that can be used. )?Line 2: {said}"):
        validate(tmp_path / "a.csv", "a.csv", task_type=task_type)
