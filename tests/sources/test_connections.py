"""Which organization may use which connection, and what is said of a file that is not right."""

import json
from pathlib import Path
from typing import Any

import pytest

from emissary.errors import InvalidInput
from emissary.operator_files import OperatorFileUnusable
from emissary.settings import settings
from emissary.sources.connections import s3_connection, sql_connection

CONNECTIONS = {
    "warehouse": {"organizations": ["first"], "sql": "postgresql://reader:secret@db/warehouse"},
    "lake": {"organizations": "all", "s3": "s3://lake/shared"},
    "deep": {"organizations": ["first"], "s3": "s3://lake/shared/deep/", "access_key_id": "deep-key"},
    "other": {"organizations": ["second"], "s3": "s3://other"},
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "sources.json"
    path.write_text(json.dumps(CONNECTIONS))
    monkeypatch.setattr(settings(), "sources", path)
    return path


@pytest.mark.usefixtures("file")
def test_connection_is_for_its_organizations_alone() -> None:
    assert sql_connection("warehouse", "first").sql.get_secret_value().endswith("@db/warehouse")
    sentences = []
    for name, organization in (("warehouse", "second"), ("warehous", "second"), ("lake", "first")):
        with pytest.raises(InvalidInput, match=r"^gather\.connection: .*EMISSARY_SOURCES") as raised:
            sql_connection(name, organization)
        sentences.append(str(raised.value).replace(name, "…"))
    assert len(set(sentences)) == 1  # nobody learns what others have


@pytest.mark.parametrize(
    ("uri", "organization", "found"),
    [
        ("s3://lake/shared", "second", "s3://lake/shared"),
        ("s3://lake/shared/tickets/", "second", "s3://lake/shared"),
        ("s3://lake/shared/deep/tickets", "second", "s3://lake/shared"),
        ("s3://lake/shared/deep/tickets", "first", "s3://lake/shared/deep/"),
        ("s3://other/anything", "second", "s3://other"),
        ("s3://other/anything", "first", None),
        ("s3://other-bucket/anything", "second", None),
        ("s3://lake/shared-not", "second", None),
        ("s3://lake", "second", None),
    ],
)
@pytest.mark.usefixtures("file")
def test_prefix_must_be_within_one_of_the_organizations_connections(
    uri: str, organization: str, found: str | None
) -> None:
    if found is not None:
        assert s3_connection(uri, organization).s3 == found
        return
    with pytest.raises(InvalidInput, match=r"^gather\.uri: "):
        s3_connection(uri, organization)


def test_without_a_file_there_are_no_connections() -> None:
    assert settings().sources is None
    with pytest.raises(InvalidInput, match="has no connection 'warehouse'"):
        sql_connection("warehouse", "first")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"w": {"sql": "postgresql://u:hidden@h/d"}}, "organizations"),
        ({"w": {"organizations": "some", "sql": "postgresql://u:hidden@h/d"}}, "organizations"),
        ({"w": {"organizations": "all", "sql": "postgresql://u:hidden@h/d", "password": "hidden"}}, "password"),
        ({"w": {"organizations": "all", "s3": "https://hidden"}}, "s3"),
        (["hidden"], "EMISSARY_SOURCES"),
    ],
)
def test_file_that_is_wrong_is_told_of_without_what_is_in_it(file: Path, content: Any, word: str) -> None:
    file.write_text(json.dumps(content))
    with pytest.raises(OperatorFileUnusable, match=word) as raised:
        sql_connection("w", "first")
    assert "hidden" not in str(raised.value)
    assert str(raised.value).startswith("EMISSARY_SOURCES")


@pytest.mark.parametrize("content", [None, b"{'hidden'", b"\xff\xfehidden"])
def test_file_that_cannot_be_read_is_told_of(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(OperatorFileUnusable, match=r"sources\.json cannot be read") as raised:
        sql_connection("w", "first")
    assert "hidden" not in str(raised.value)
