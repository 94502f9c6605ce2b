"""Uploads that are refused: in which words, and that nothing is left behind."""

import gzip
import io
import socket
from contextlib import suppress

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emissary.client import ApiError, Client
from emissary.up import Platform
from tests.api.refusals import GOOD, LIMIT, bad_name, everything, refused, upload

NUMBER = b'{"prompt": "a", "completion": 1}\n'


def nested() -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"prompt": [["a"]], "completion": ["b"]}), written)
    return written.getvalue()


NESTED = nested()
FILES = {
    "empty": ("a.jsonl", b"", ["empty"]),
    "blank lines": ("a.jsonl", b"\n \n", ["no rows"]),
    "no rows in array": ("a.json", b"[]", ["no rows"]),
    "wrong extension": ("a.txt", GOOD, [".txt", ".jsonl"]),
    "no extension": ("a", GOOD, ["no extension"]),
    "not UTF-8": ("a.jsonl", GOOD + b'{"prompt": "caf\xe9"}', ["not UTF-8", "offset"]),
    "binary": ("a.csv", b"\x89PNG\r\n\x1a\n\x00\x00", ["not UTF-8", "offset 0"]),
    "NUL byte": ("a.jsonl", GOOD + b"\x00", ["NUL", "offset"]),
    "not Parquet": ("a.parquet", b"some text", ["Parquet"]),
    "invalid JSON": ("a.jsonl", GOOD * 2 + b'{"prompt": "a", "completion": }\n' + GOOD, ["Line 3", "JSON"]),
    "cut off": ("a.jsonl", GOOD + GOOD[:20], ["Line 2", "JSON"]),
    "invalid JSON in array": ("a.json", b"[\n" + GOOD + b", {]", ["Line 3", "JSON"]),
    "zip": ("a.jsonl", b"PK\x03\x04" + bytes(100), ["zip archive or an Excel workbook", "Unzip"]),
    "archive bomb": ("a.jsonl.gz", gzip.compress((b" " * 65535 + b"\n") * 1100), ["unpacks to more than 64 MiB"]),
    "cut off gzip": ("a.jsonl.gz", gzip.compress(GOOD)[:-4], ["gzip", "cut off"]),
    "nested Parquet": ("a.parquet", NESTED, ["'prompt'", "list<", "must be text"]),
    "CSV with a column missing": ("a.csv", b"input;expected_output\na;b\nc\n", ["Line 3", "number of fields is 1"]),
    "text as target": ("a.jsonl", NUMBER * 3 + b'{"prompt": "a", "completion": "b"}\n', ["Line 4", "must be a number"]),
    "similarity over 1": ("a.csv", b"text1,text2,score\na,b,1\na,b,1.01\n", ["Line 3", "'score'", "1.01"]),
    "NaN": ("a.jsonl", GOOD + b'{"prompt": "a", "completion": NaN}', ["Line 2", "NaN"]),
    "row that is no object": ("a.jsonl", GOOD + b"5\n", ["Line 2", "object"]),
    "no target": ("a.jsonl", GOOD + b'{"prompt": "a"}\n' + GOOD, ["Line 2", "'completion'"]),
    "null target": ("a.jsonl", GOOD + b'{"prompt": "a", "completion": null}\n', ["Line 2", "'completion'"]),
    "no assistant's turn": ("a.jsonl", b'{"messages": [{"role": "user", "content": "a"}]}', ["Line 1", "messages"]),
    "no target in array": ("a.json", b"[" + GOOD + b', {"prompt": "a"}]', ["Row 2", "'completion'"]),
    "no target in CSV": ("a.csv", b"input,expected_output\na,b\nc,\n", ["Line 3"]),
    "CSV of other columns": ("a.csv", b"colour,size\na,b\n", ["Line 1", "input", "expected_output"]),
    "rows of two kinds": ("a.jsonl", GOOD + b'{"messages": 5, "prompt": "a"}\n', ["Line 2", "messages"]),
}


@pytest.mark.parametrize(("file_name", "content", "words"), FILES.values(), ids=FILES)
def test_unusable_file_is_refused_naming_the_place(
    client: Client, project: str, file_name: str, content: bytes, words: list[str]
) -> None:
    with refused(client, project, *words):
        upload(client, project, content, file_name)


def test_unusable_rows_are_listed_with_line_and_reason(client: Client, project: str) -> None:
    content = GOOD + b"{}\n" * 150 + GOOD
    with pytest.raises(ApiError) as raised:
        upload(client, project, content)
    problems = raised.value.details["problems"]
    reason = "it has neither 'prompt' and 'completion' nor 'messages'"
    assert problems == [{"line": line, "reason": reason} for line in range(2, 102)]
    assert raised.value.details["problem_count"] == 150
    assert str(raised.value).startswith(f"Line 2: {reason}. 149 more rows do not fit text-generation")


def test_unusable_rows_are_left_out_where_that_is_asked_for(client: Client, project: str) -> None:
    made = upload(client, project, GOOD + b"{\n" + GOOD, on_invalid="skip")
    path = f"/v1/projects/{project}/datasets/{made['id']}"
    profile = client.get(path)["profile"]
    assert (profile["rows"], profile["skipped"], profile["on_invalid"]) == (2, 1, "skip")
    assert [problem["line"] for problem in profile["problems"]] == [2]
    client.delete(path)
    with refused(client, project, "no row that can be used", "Line 1"):
        upload(client, project, b"{\n", on_invalid="skip")
    with refused(client, project, "on_invalid", "refuse or skip"):
        upload(client, project, GOOD, on_invalid="ignore")


def test_row_that_does_not_fit_the_task_type_is_refused_with_its_line(client: Client, project: str) -> None:
    content = b"input,expected_output\ngood,5\nbad,NaN\n"
    with refused(client, project, "Line 3", "'expected_output' must be a number"):
        upload(client, project, content, "ratings.csv", task_type="regression")
    with refused(client, project, "task_type", "regression"):
        upload(client, project, content, "ratings.csv", task_type="poetry")
    made = upload(client, project, content, "ratings.csv", task_type="regression", on_invalid="skip")
    path = f"/v1/projects/{project}/datasets/{made['id']}"
    assert client.get(path)["profile"]["skipped"] == 1
    client.delete(path)


@pytest.mark.parametrize("name", ["colours.jsonl.gz", "colours.csv", "colours.parquet"])
def test_packed_file_is_read_and_named_without_its_extensions(client: Client, project: str, name: str) -> None:
    content = gzip.compress(GOOD)
    made = upload(client, project, content, name)
    detail = client.get(f"/v1/projects/{project}/datasets/{made['id']}")
    assert (made["name"], detail["profile"]["rows"]) == ("colours", 1)
    assert httpx.get(detail["dataset_download_url"], trust_env=False).content == content
    client.delete(f"/v1/projects/{project}/datasets/{made['id']}")


@bad_name
def test_bad_name_of_a_dataset_is_refused(client: Client, project: str, name: str) -> None:
    with refused(client, project, "name"):
        upload(client, project, GOOD, name=name)


def test_folders_before_a_file_name_are_dropped(client: Client, project: str) -> None:
    made = upload(client, project, GOOD, "../../etc/colours.jsonl")
    assert made["name"] == "colours"
    client.call("DELETE", f"/v1/projects/{project}/datasets/{made['id']}")


def test_upload_without_a_file_or_not_a_form_is_refused(client: Client, project: str) -> None:
    path = f"/v1/projects/{project}/datasets"
    with refused(client, project, "file"):
        client.call("POST", path, files={"other": ("a.jsonl", GOOD)})
    with refused(client, project, "file"):
        client.call("POST", path, files={"file": (None, "text")})
    with refused(client, project, "multipart/form-data"):
        client.post(path, {"file": "a"})
    with refused(client, project, "boundary"):
        client.call("POST", path, content=GOOD, headers={"Content-Type": "multipart/form-data"})


def test_upload_to_an_unknown_project_is_not_found(client: Client, project: str) -> None:
    with refused(client, project, "ms-unknown", status=404):
        upload(client, "ms-unknown", GOOD)


def filled(size: int) -> bytes:
    """A JSON Lines file of `size` bytes."""
    empty = b'{"prompt": "a", "completion": ""}\n'
    return b'{"prompt": "a", "completion": "' + b"x" * (size - len(empty)) + b'"}\n'


def test_file_of_the_limit_is_taken(client: Client, project: str) -> None:
    made = upload(client, project, filled(LIMIT))
    detail = client.get(f"/v1/projects/{project}/datasets/{made['id']}")
    assert detail["profile"]["bytes"] == LIMIT
    client.call("DELETE", f"/v1/projects/{project}/datasets/{made['id']}")


@pytest.mark.parametrize("size", [LIMIT + 1, 5 * LIMIT])
def test_file_over_the_limit_is_refused(client: Client, project: str, size: int) -> None:
    with refused(client, project, "file", "1 MiB", "EMISSARY_MAX_UPLOAD_MB"):
        upload(client, project, filled(size))


@pytest.mark.parametrize("length", [f"Content-Length: {1000 * LIMIT}", "Transfer-Encoding: chunked"])
def test_file_over_the_limit_is_refused_while_it_is_being_sent_and_the_connection_closed(
    client: Client, platform: Platform, project: str, length: str
) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + filled(2 * LIMIT)
    head = (
        f"POST /v1/projects/{project}/datasets HTTP/1.1\r\nHost: x\r\nX-API-Key: {platform.api_key}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\n{length}\r\n\r\n"
    )
    if "chunked" in length:
        part = f"{len(part):x}\r\n".encode() + part + b"\r\n"
    url = httpx.URL(platform.api_url)
    before = everything(client, project)
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        answer = b""
        # The server closes: whoever still writes is told so, and whoever reads comes to an end.
        with suppress(ConnectionError):
            connection.sendall(head.encode() + part)
        with suppress(ConnectionError):
            while received := connection.recv(65536):
                answer += received
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert b"send it in parts" in answer
    assert everything(client, project) == before
