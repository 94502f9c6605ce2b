"""Queries of a real PostgreSQL and SQLite: what they find, and what they cannot do."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from pydantic import ValidationError

from emissary.errors import EmissaryError, InvalidInput, Unavailable
from emissary.operator_files import OperatorFileUnusable
from emissary.schemas.sources import SqlSource
from emissary.settings import settings
from emissary.sources import sql
from emissary.store.database import companion_database
from emissary.store.embedded_server import embedded_server
from tests.conftest import free_port
from tests.own_home import own_home

TABLES = """
CREATE TABLE tickets (id int PRIMARY KEY, question text, answer text, hours numeric(6, 2), tags jsonb);
INSERT INTO tickets SELECT n, 'Ticket ' || n || ': 100%?', CASE WHEN n = 2 THEN NULL ELSE 'answer: ' || n END, n / 4.0,
  jsonb_build_object('odd', n % 2, 'nothing', NULL) FROM generate_series(1, 5) AS n;
CREATE FUNCTION sneaky() RETURNS text LANGUAGE plpgsql VOLATILE AS
  $$ BEGIN DELETE FROM tickets; RETURN 'gone'; END $$;
"""


@pytest.fixture(scope="module")
def warehouse() -> Iterator[sqlalchemy.Engine]:
    with own_home() as home, embedded_server(home / "postgres") as server, pytest.MonkeyPatch.context() as patch:
        address = companion_database(server.get_uri(), "warehouse")
        engine = sqlalchemy.create_engine(sqlalchemy.make_url(address).set(drivername="postgresql+psycopg"))
        with engine.begin() as database:
            database.exec_driver_sql(TABLES, execution_options={"no_parameters": True})
        (home / "sources.json").write_text(
            json.dumps(
                {
                    "warehouse": {"organizations": ["default"], "sql": address},
                    "away": {"organizations": "all", "sql": f"postgresql://u:hidden@127.0.0.1:{free_port()}/d"},
                    "strange": {"organizations": "all", "sql": "voodoo://u:hidden@host/d"},
                    "driverless": {"organizations": "all", "sql": "mysql+voodoo://u:hidden@host/d"},
                    "file": {"organizations": "all", "sql": f"sqlite:///{home}/file.db"},
                }
            )
        )
        patch.setattr(settings(), "sources", home / "sources.json")
        yield engine
        engine.dispose()


def source(query: str, connection: str = "warehouse") -> SqlSource:
    return SqlSource(source="sql", connection=connection, query=query)


def rows(query: str, folder: Path) -> list[dict[str, Any]]:
    found = sql.fetch(source(query), "default", folder)
    assert found.file_name == "warehouse.jsonl"
    return [json.loads(line) for line in found.path.read_text().splitlines()]


@pytest.mark.usefixtures("warehouse")
def test_rows_of_every_task_type_are_fetched(tmp_path: Path) -> None:
    text = (
        "SELECT id, question AS prompt, answer AS completion FROM tickets WHERE question LIKE '%100\\%%' ORDER BY id;"
    )
    found = rows(text, tmp_path)
    assert found[0] == {"prompt": "Ticket 1: 100%?", "completion": "answer: 1"}
    assert found[1] == {"prompt": "Ticket 2: 100%?"}
    assert len(found) == 5
    assert rows(
        "with t as (select * from tickets) SELECT question prompt, hours completion FROM t WHERE id = 3", tmp_path
    ) == [{"prompt": "Ticket 3: 100%?", "completion": 0.75}]
    labels = rows("SELECT question AS prompt, tags AS completion FROM tickets WHERE id = 4", tmp_path)
    assert labels == [{"prompt": "Ticket 4: 100%?", "completion": {"odd": 0}}]
    pairs = (
        "SELECT jsonb_build_object('text', question) AS \"itemA\", jsonb_build_object('text', answer) AS \"itemB\", "
        "0.5::float8 AS similarity FROM tickets WHERE id = 1"
    )
    assert rows(pairs, tmp_path) == [
        {"itemA": {"text": "Ticket 1: 100%?"}, "itemB": {"text": "answer: 1"}, "similarity": 0.5}
    ]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM tickets",
        "SELECT 1; DROP TABLE tickets",
        "SELECT 1; COMMIT; DROP TABLE tickets; SELECT 1",
        "COPY tickets TO PROGRAM 'id'",
        "EXPLAIN ANALYZE DELETE FROM tickets",
        "-- SELECT\nDELETE FROM tickets",
        "/* SELECT */ DELETE FROM tickets",
        "(DELETE FROM tickets)",
        "SELECT 'a'; DROP TABLE tickets; SELECT 'a'",
        "SELECT 1 /* ' */; DROP TABLE tickets; -- '",
        # Where a quote or comment ends is another place in another dialect.
        "SELECT E'\\''; DROP TABLE tickets; --'",
        "SELECT '\\''; DROP TABLE tickets; -- '",
        "SELECT $$'$$; DROP TABLE tickets; SELECT $$'$$",
        "SELECT 1 AS `'`; DROP TABLE tickets; SELECT 1 AS `'`",
        "SELECT 1 # '\n; DROP TABLE tickets; # '",
        "SELECT 1 --1; DROP TABLE tickets",
        "SELECT 1 -- \r; DROP TABLE tickets",
        "SELECT 1 /* /* */ ' */; DROP TABLE tickets; -- '",
        "SELECT 1 /*! ; DROP TABLE tickets */",
        "selected",
        "",
    ],
)
def test_what_is_not_one_select_is_no_query(query: str) -> None:
    with pytest.raises(ValidationError):
        source(query)


@pytest.mark.parametrize(
    ("query", "prompt"),
    [
        ("SELECT 'a;b' AS prompt", "a;b"),
        ("SELECT 'it''s; 1#$' AS prompt;", "it's; 1#$"),
        ("SELECT max(question) AS \"prompt\" FROM tickets WHERE question <> ';'; -- the last; one", "Ticket 5: 100%?"),
        ("(SELECT 'a' AS prompt UNION SELECT 'a') ORDER BY 1", "a"),
        ("-- what\r\n/* we; want */ SELECT 'a' AS prompt", "a"),
        ("((WITH t AS (SELECT 'a' AS prompt) SELECT * FROM t))", "a"),
        ("--short\nSELECT '\\' AS prompt", "\\"),
    ],
)
@pytest.mark.usefixtures("warehouse")
def test_one_select_is_a_query_whatever_its_quotes_and_comments(tmp_path: Path, query: str, prompt: str) -> None:
    assert rows(query, tmp_path) == [{"prompt": prompt}]


def test_long_query_is_read_at_once() -> None:
    begun = time.process_time()
    for part in ("/**/", "(", "'a", "-- a\n", "/* /* ", "';'", "-"):
        with pytest.raises(ValidationError):
            source((part * 20_000)[:19_990] + "; 1")
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "query",
    [
        "WITH gone AS (DELETE FROM tickets RETURNING *) SELECT question AS prompt FROM gone",
        "SELECT sneaky() AS prompt",
        "SELECT set_config('transaction_read_only', 'off', false) || sneaky() AS prompt",
        "SELECT question AS prompt INTO copied FROM tickets",
        "SELECT question AS prompt FROM tickets FOR UPDATE",
    ],
)
def test_query_changes_nothing(warehouse: sqlalchemy.Engine, tmp_path: Path, query: str) -> None:
    with pytest.raises(InvalidInput, match=r"^gather\.query: the database refuses it: "):
        sql.fetch(source(query), "default", tmp_path)
    with warehouse.connect() as database:
        assert database.scalar(sqlalchemy.text("SELECT count(*) FROM tickets")) == 5
        assert database.scalar(sqlalchemy.text("SELECT to_regclass('copied')")) is None


@pytest.mark.parametrize(
    "query", ["WITH x AS (SELECT 1) DELETE FROM t", "WITH x AS (SELECT 1) DELETE FROM t RETURNING prompt"]
)
@pytest.mark.usefixtures("warehouse")
def test_query_of_sqlite_changes_nothing(tmp_path: Path, query: str) -> None:
    assert settings().sources is not None
    with closing(sqlite3.connect(settings().sources.with_name("file.db"))) as file:
        file.executescript("CREATE TABLE IF NOT EXISTS t (prompt text); DELETE FROM t; INSERT INTO t VALUES ('a')")
        asked = source(query, "file")
        with pytest.raises(InvalidInput, match=r"^gather\.query: the database refuses it: .*readonly"):
            sql.check(asked, "default")
        with pytest.raises(InvalidInput, match=r"^gather\.query: the database refuses it: .*readonly"):
            sql.fetch(asked, "default", tmp_path)
        assert file.execute("SELECT count(*) FROM t").fetchone() == (1,)
    found = sql.fetch(source("SELECT prompt FROM t", "file"), "default", tmp_path)
    assert json.loads(found.path.read_text()) == {"prompt": "a"}


def test_sqlite_file_that_is_not_there_is_away_and_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources.json").write_text(
        json.dumps({"file": {"organizations": "all", "sql": f"sqlite:///{tmp_path}/50% of #1/hidden.db"}})
    )
    monkeypatch.setattr(settings(), "sources", tmp_path / "sources.json")
    folder = tmp_path / "50% of #1"
    folder.mkdir()
    with pytest.raises(Unavailable, match=r"^gather\.connection: the database of 'file'") as raised:
        sql.check(source("SELECT 1 AS prompt", "file"), "default")
    assert "hidden" not in str(raised.value)
    assert list(folder.iterdir()) == []
    with closing(sqlite3.connect(folder / "hidden.db")) as file:
        file.executescript("PRAGMA journal_mode = wal; CREATE TABLE t (prompt text); INSERT INTO t VALUES ('a')")
    found = sql.fetch(source("SELECT prompt FROM t", "file"), "default", tmp_path)
    assert json.loads(found.path.read_text()) == {"prompt": "a"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT prompt FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT FROM WHERE", "syntax error"),
        ("SELECT question FROM tickets", r"has the columns question, and none that"),
        ("SELECT question AS prompt FROM tickets WHERE false", "it finds no rows"),
    ],
)
@pytest.mark.usefixtures("warehouse")
def test_query_that_gives_nothing_to_train_on_is_told(tmp_path: Path, query: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^gather\.query: .*{words}"):
        sql.fetch(source(query), "default", tmp_path)


@pytest.mark.usefixtures("warehouse")
def test_query_is_bounded_in_time_rows_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "LONGEST_SECONDS", 1)
    with pytest.raises(InvalidInput, match="takes longer than 1 s"):
        sql.fetch(source("SELECT pg_sleep(20)::text AS prompt"), "default", tmp_path)
    monkeypatch.setattr(sql, "LONGEST_SECONDS", 60)
    monkeypatch.setattr(sql, "MOST_ROWS", 4)
    with pytest.raises(InvalidInput, match="more than 4 rows"):
        sql.fetch(source("SELECT question AS prompt FROM tickets"), "default", tmp_path)
    monkeypatch.setattr(sql, "MOST_ROWS", 10_000)
    monkeypatch.setattr(settings(), "max_large_upload_mb", 1)
    with pytest.raises(InvalidInput, match="more than the limit of 1 MiB"):
        sql.fetch(source("SELECT repeat('a', 1000) AS prompt FROM generate_series(1, 2000)"), "default", tmp_path)


@pytest.mark.usefixtures("warehouse")
def test_check_begins_the_query_and_does_not_wait_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "CHECK_SECONDS", 1)
    sql.check(source("SELECT pg_sleep(600)::text AS prompt"), "default")
    with pytest.raises(InvalidInput, match='column "prompts" does not exist'):
        sql.check(source("SELECT prompts FROM tickets"), "default")


@pytest.mark.usefixtures("warehouse")
@pytest.mark.parametrize(
    ("name", "organization", "kind", "words"),
    [
        ("away", "default", Unavailable, r"^gather\.connection: the database of 'away'"),
        ("warehouse", "other", InvalidInput, r"^gather\.connection: this organization has no connection"),
        ("strange", "default", OperatorFileUnusable, r"^EMISSARY_SOURCES, strange\.sql: .* only reads"),
        ("driverless", "default", OperatorFileUnusable, r"^EMISSARY_SOURCES, driverless\.sql: .* driver"),
    ],
)
def test_connection_that_cannot_be_had_is_told_without_its_address(
    name: str, organization: str, kind: type[EmissaryError], words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        sql.check(source("SELECT 1 AS prompt", name), organization)
    for hidden in ("hidden", "127.0.0.1", "voodoo"):
        assert hidden not in str(raised.value)
