"""Packed files, UTF-16, archive bombs, and what is no file of rows."""

import gzip
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary.data import content
from emissary.data.reading import read
from emissary.errors import InvalidInput
from tests.data.uploaded import uploaded_rows

ROWS = [{"prompt": f"Grüße {index} 你好 😀", "completion": "ja,\n„nein“; |\t."} for index in range(3)]
CSV = "input,expected_output\n" + "".join(f'{row["prompt"]},"{row["completion"]}"\n' for row in ROWS)
FILES = {
    "a.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(),
    "a.json": json.dumps(ROWS).encode(),
    "a.csv": CSV.encode(),
}


def parquet() -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), written)
    return written.getvalue()


FILES["a.parquet"] = parquet()
PACKED = {
    "gzip": gzip.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
    "gzip, two members": lambda data: gzip.compress(data[:40]) + gzip.compress(data[40:]),
}


def rows(tmp_path: Path, name: str, data: bytes) -> list[dict]:
    (tmp_path / "upload").write_bytes(data)
    return [row for _, row in uploaded_rows(tmp_path / "upload", name)]


def refusal(tmp_path: Path, name: str, data: bytes) -> str:
    with pytest.raises(InvalidInput) as raised:
        rows(tmp_path, name, data)
    return str(raised.value)


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("name", FILES)
def test_packed_file_is_read_whatever_its_name_says(tmp_path, name, packing):
    data = PACKED[packing](FILES[name])
    assert rows(tmp_path, name, data) == ROWS
    assert rows(tmp_path, f"{name}.GZ", data) == ROWS
    assert rows(tmp_path, f"{name}.zst", FILES[name]) == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_text_of_another_encoding_that_its_mark_tells_is_read(tmp_path, name, encoding):
    data = FILES[name].decode().encode(encoding)
    if encoding == "utf-16-be":
        data = b"\xfe\xff" + data
    with patch.object(content, "HEAD_BYTES", 7):
        assert rows(tmp_path, name, data) == ROWS
    assert rows(tmp_path, name, gzip.compress(data)) == ROWS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_delimiter_of_a_csv_file_is_found_out(tmp_path, delimiter, line_end):
    quoted = [[f'"{text}"' for text in row.values()] for row in ROWS]
    lines = [["expected, really; | or\tnot", "input", "expected_output"], *(["", *cells] for cells in quoted)]
    lines[0][0] = f'"{lines[0][0]}"'
    data = line_end.join(delimiter.join(cells) for cells in lines).encode("utf-8-sig")
    found = rows(tmp_path, "a.csv", data)
    assert [{name: row[name] for name in ("prompt", "completion")} for row in found] == ROWS


@pytest.mark.parametrize("true", FILES)
@pytest.mark.parametrize("said", FILES)
def test_file_of_another_format_than_its_name_says_is_read_as_what_it_is(tmp_path, true, said):
    assert rows(tmp_path, said, FILES[true]) == ROWS


ANY_ROWS = st.lists(
    st.fixed_dictionaries(
        {name: st.text(st.characters(exclude_categories=["Cs"])) for name in ("prompt", "completion")}
    ),
    min_size=1,
)


@given(ANY_ROWS, st.sampled_from(sorted(PACKED)), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
@settings(deadline=None)
def test_any_rows_are_read_from_any_packing_and_encoding(wanted, packing, encoding):
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in wanted)
    with TemporaryDirectory() as folder:
        assert rows(Path(folder), "a.jsonl", PACKED[packing](lines.encode(encoding))) == wanted
        assert rows(Path(folder), "a.json", lines.join(["[", "]"]).replace("\n", ",").encode(encoding)) == wanted


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.binary(max_size=3).filter(lambda after: 0 not in after),
)
@settings(deadline=None)
def test_byte_that_is_no_text_is_told_with_its_offset_wherever_it_is(before, after):
    start = b"input,expected_output\n" + before.encode()
    with TemporaryDirectory() as folder:
        for data in (start + b"\xff" + after, gzip.compress(start + b"\xff" + after)):
            assert f"the byte at offset {len(start)} is not valid" in refusal(Path(folder), "a.csv", data)


def archive(kind: str) -> bytes:
    written = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(written, "w") as zipped:
            zipped.writestr("a.jsonl", FILES["a.jsonl"])
    else:
        with tarfile.open(fileobj=written, mode=f"w:{kind.removeprefix('tar').removeprefix('.')}") as tar:
            member = tarfile.TarInfo("a.jsonl")
            member.size = len(FILES["a.jsonl"])
            tar.addfile(member, io.BytesIO(FILES["a.jsonl"]))
    return written.getvalue()


# By name: what is packed has the time in it, and both processes that run the tests must call them the same.
NO_ROWS = {
    "zip": (archive("zip"), ["a zip archive or an Excel workbook", "Unzip it, or save the sheet as CSV"]),
    "tar": (archive("tar"), ["a tar archive", "Unpack it"]),
    "tar.gz": (archive("tar.gz"), ["a tar archive"]),
    "tar.bz2": (archive("tar.bz2"), ["packed with bzip2", "gzip or zstd"]),
    "tar.xz": (archive("tar.xz"), ["packed with xz"]),
    "PDF": (b"%PDF-1.7\n", ["a PDF"]),
    "gzip of gzip": (gzip.compress(gzip.compress(FILES["a.jsonl"])), ["packed twice"]),
    "gzip of nothing": (gzip.compress(b""), ["packed file is empty"]),
    "half a gzip": (gzip.compress(os.urandom(100_000))[:-50_000], ["gzip file is cut off or damaged", "Pack it again"]),
    "gzip without its end": (gzip.compress(FILES["a.jsonl"])[:-9], ["gzip file is cut off or damaged"]),
    "gzip with another end": (gzip.compress(FILES["a.jsonl"])[:-8] + bytes(8), ["gzip file is cut off or damaged"]),
    "half a zstd": (pa.compress(FILES["a.jsonl"], "zstd", asbytes=True)[:-5], ["zstd file is cut off or damaged"]),
    "two bytes of gzip": (b"\x1f\x8b", ["gzip file is cut off or damaged"]),
    "gzip in name only": (b"\x1f\x8bnot at all", ["gzip file is cut off or damaged"]),
}


@pytest.mark.parametrize("kind", NO_ROWS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv.gz"])
def test_what_holds_no_rows_is_refused_saying_what_to_do(tmp_path, name, kind):
    data, words = NO_ROWS[kind]
    sentence = refusal(tmp_path, name, data)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_archive_bomb_is_refused_before_it_is_unpacked(tmp_path, name, packing):
    start = b"PAR1" if name == "a.parquet" else b'[{"prompt": "' if name == "a.json" else b"{}\n"
    bomb = PACKED[packing](start + b" " * (4 << 20))
    with patch.object(content, "_ALWAYS_UNPACKED", 2 << 20):
        assert "unpacks to more than 2 MiB, 200 times its packed size" in refusal(tmp_path, name, bomb)


def test_packed_file_is_limited_like_one_that_is_not(tmp_path):
    (tmp_path / "upload").write_bytes(gzip.compress(b"{}\n" + b" " * (2 << 20)))
    with pytest.raises(
        InvalidInput, match=r"more than 1 MiB, the limit for a dataset \(EMISSARY_MAX_LARGE_UPLOAD_MB\)"
    ):
        list(read(tmp_path / "upload", "a.jsonl.gz", most_bytes=1 << 20))
