"""New objects of a bucket on a real S3 server, within the connections that the operator gave."""

import gzip
import json
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest

from emissary.errors import InvalidInput, Unavailable
from emissary.schemas.sources import S3Source
from emissary.settings import settings
from emissary.sources import s3
from emissary.sources.fetched import Fetched
from tests.acceptance.conftest import KEYS, S3Server
from tests.conftest import free_port
from tests.jobs import jsonl

pytestmark = pytest.mark.acceptance

ROWS = [{"prompt": f"Say {word}.", "completion": word} for word in ("red", "green", "blue")]


class Lake:
    """A prefix of its own in the bucket, and connections to it."""

    def __init__(self, server: S3Server, file: Path) -> None:
        self.bucket, self.prefix = server.bucket, f"lake-{uuid.uuid4().hex}"
        self.endpoint, self.file = server.variables["AWS_ENDPOINT_URL"], file
        self.client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        self.connect()

    @property
    def root(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def connect(self, **changed: str) -> None:
        connection = {
            "organizations": ["default"], "s3": self.root, "endpoint_url": self.endpoint, "region": "us-east-1",
            "access_key_id": "reader", "secret_access_key": "reader-secret",
        }  # fmt: skip
        self.file.write_text(json.dumps({"lake": connection | changed}))

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}{key}", Body=body)

    def fetch(
        self, folder: Path, known: list[Any], uri: str | None = None, objects: list[str] | None = None
    ) -> Fetched | None:
        folder = folder / uuid.uuid4().hex
        folder.mkdir()
        source = S3Source(source="s3", uri=uri or f"{self.root}/tickets/")
        return s3.fetch(source, "default", known, "text-generation", folder, objects)


@pytest.fixture
def lake(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    for name in s3_server.variables:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(settings(), "sources", tmp_path / "sources.json")
    return Lake(s3_server, tmp_path / "sources.json")


def lines(found: Fetched | None) -> list[dict[str, Any]]:
    assert found is not None
    return [json.loads(line) for line in found.path.read_text().splitlines()]


def test_objects_are_fetched_once_and_again_when_they_change(lake: Lake, tmp_path: Path) -> None:
    assert lake.fetch(tmp_path, []) is None
    lake.put("/tickets/1.jsonl", jsonl(ROWS[:2]))
    lake.put("/tickets/_SUCCESS", b"")
    lake.put("/tickets/README.md", b"not rows")
    lake.put("/others/1.jsonl", jsonl(ROWS))
    first = lake.fetch(tmp_path, [])
    assert first is not None
    assert (lines(first), first.file_name) == (ROWS[:2], "1.jsonl")
    assert lake.fetch(tmp_path, [first.origin]) is None

    lake.put("/tickets/deeper/2.csv", b"input,expected_output\nSay blue.,blue\nSay red.,red\n")
    lake.put("/tickets/3.json.gz", gzip.compress(json.dumps(ROWS[1:]).encode()))
    second = lake.fetch(tmp_path, [first.origin])
    assert second is not None
    assert second.file_name == "objects.jsonl"
    assert sorted(lines(second), key=lambda row: row["completion"]) == sorted(ROWS, key=lambda row: row["completion"])
    assert {key.removeprefix(lake.prefix) for key, _ in second.origin["objects"]} == {
        "/tickets/deeper/2.csv", "/tickets/3.json.gz",
    }  # fmt: skip
    known = [first.origin, second.origin]
    assert lake.fetch(tmp_path, known) is None

    lake.put("/tickets/1.jsonl", jsonl(ROWS[2:]))
    assert lines(lake.fetch(tmp_path, known)) == ROWS[2:]


def test_objects_are_taken_in_turns(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MOST_OBJECTS", 2)
    for number, row in enumerate(ROWS):
        lake.put(f"/tickets/{number}.jsonl", jsonl([row]))
    known: list[Any] = []
    sizes = []
    while (found := lake.fetch(tmp_path, known)) is not None:
        known.append(found.origin)
        sizes.append(len(lines(found)))
    assert sizes == [2, 1]
    monkeypatch.setattr(settings(), "max_large_upload_mb", 1)
    lake.put("/tickets/large.jsonl", b" " * (2**20 + 1))
    with pytest.raises(InvalidInput, match=r"^gather\.uri: the object .*large\.jsonl is larger than .* 1 MiB"):
        lake.fetch(tmp_path, known)


def test_neighbour_of_the_connections_prefix_is_not_read(lake: Lake, tmp_path: Path) -> None:
    lake.put("-not/1.jsonl", jsonl(ROWS))
    assert lake.fetch(tmp_path, [], lake.root) is None
    for uri in (f"{lake.root}-not", f"s3://{lake.bucket}", "s3://elsewhere/a"):
        with pytest.raises(InvalidInput, match=r"^gather\.uri: .* is not within a connection"):
            lake.fetch(tmp_path, [], uri)


def test_object_that_cannot_be_used_is_named(lake: Lake, tmp_path: Path) -> None:
    lake.put("/tickets/good.jsonl", jsonl(ROWS))
    lake.put("/tickets/bad.jsonl", b'{"prompt": "a"}\n')
    with pytest.raises(InvalidInput, match=rf"^gather\.uri: the object {lake.root}/tickets/bad\.jsonl cannot be used"):
        lake.fetch(tmp_path, [])
    lake.put("/tickets/bad.jsonl", b'{"itemA": {"text": "a"}, "itemB": {"text": "b"}, "similarity": 1}\n')
    with pytest.raises(InvalidInput, match=r"bad\.jsonl does not fit text-generation\. "):
        lake.fetch(tmp_path, [])


def test_bucket_that_is_gone_closed_or_away_is_told(lake: Lake, tmp_path: Path) -> None:
    lake.connect(s3="s3://no-such-bucket")
    source = S3Source(source="s3", uri="s3://no-such-bucket/tickets")
    with pytest.raises(InvalidInput, match=r"^gather\.uri: s3://no-such-bucket/tickets is not there"):
        s3.check(source, "default")
    source = S3Source(source="s3", uri=f"{lake.root}/tickets")
    lake.connect(secret_access_key="wrong")
    with pytest.raises(InvalidInput, match=r"^gather\.uri: S3 refuses access to .*EMISSARY_SOURCES") as raised:
        s3.check(source, "default")
    assert "wrong" not in str(raised.value)
    lake.connect(endpoint_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match=r"^gather\.uri: the server of .* cannot be asked"):
        s3.check(source, "default")


def test_named_objects_are_fetched_alone_and_then_no_more(lake: Lake, tmp_path: Path) -> None:
    for number, row in enumerate(ROWS):
        lake.put(f"/tickets/{number} é.jsonl", jsonl([row]))
    keys = [f"{lake.prefix}/tickets/{number} é.jsonl" for number in range(len(ROWS))]
    named = lake.fetch(tmp_path, [], objects=[keys[1]])
    assert named is not None
    assert (lines(named), named.file_name) == ([ROWS[1]], "1 é.jsonl")
    rest = lake.fetch(tmp_path, [named.origin])
    assert rest is not None
    assert lines(rest) == [ROWS[0], ROWS[2]]
    known = [named.origin, rest.origin]
    assert lake.fetch(tmp_path, known) is None
    assert lines(lake.fetch(tmp_path, known, objects=keys[:2])) == ROWS[:2]  # whoever names them wants them again


def test_named_object_that_is_gone_outside_no_data_or_too_large_is_told(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match=rf"^objects: there is no object {lake.root}/tickets/a\.jsonl"):
        lake.fetch(tmp_path, [], objects=[f"{lake.prefix}/tickets/a.jsonl"])
    lake.put("-not/1.jsonl", jsonl(ROWS))
    with pytest.raises(InvalidInput, match=r"^objects: '.*-not/1\.jsonl' is not within"):
        lake.fetch(tmp_path, [], lake.root, objects=[f"{lake.prefix}-not/1.jsonl"])
    lake.put("/tickets/_SUCCESS", b"done")
    assert lake.fetch(tmp_path, [], objects=[f"{lake.prefix}/tickets/_SUCCESS"]) is None
    monkeypatch.setattr(settings(), "max_large_upload_mb", 1)
    for number in range(2):
        lake.put(f"/tickets/{number}.jsonl", b" " * 600_000)
    with pytest.raises(InvalidInput, match=r"^objects: together they are larger than the limit of 1 MiB"):
        lake.fetch(tmp_path, [], objects=[f"{lake.prefix}/tickets/{number}.jsonl" for number in range(2)])
