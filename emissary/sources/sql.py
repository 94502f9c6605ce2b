"""What a query finds in a database, through SQLAlchemy.

On PostgreSQL the query is declared as a cursor in a transaction that only reads, which takes nothing but a SELECT, and
its rows come in portions. SQLite, MySQL and MariaDB have a mode that only reads; a database without one is not asked.
The connection should be of a user who may read what is meant to be read, and no more, all the same.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy
from sqlalchemy.engine import URL, CursorResult, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from emissary.data.row_files import write_rows
from emissary.errors import EmissaryError, InvalidInput, Unavailable
from emissary.operator_files import OperatorFileUnusable
from emissary.schemas.sources import SqlSource
from emissary.settings import settings
from emissary.sources import connections
from emissary.sources.fetched import Fetched

MOST_ROWS = 1_000_000
LONGEST_SECONDS = 600
CHECK_SECONDS = 5
_PORTION = 1000
_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}

log = logging.getLogger(__name__)


class _TooLate(InvalidInput):
    """The query has taken the time there was for it."""


def check(source: SqlSource, organization: str) -> None:
    """Raises InvalidInput where the organization has no such connection or the database refuses the query; Unavailable
    where it is away. The query is begun, and on PostgreSQL ended after some seconds: one that takes longer is fine.
    """
    with suppress(_TooLate), _result(source, organization, CHECK_SECONDS):
        pass


def fetch(source: SqlSource, organization: str, folder: Path) -> Fetched:
    """The rows, in a file in `folder`. Raises as `check`, and InvalidInput for more than a million of them."""
    path = folder / "fetched"
    with _result(source, organization, LONGEST_SECONDS) as result:
        most_bytes = settings().max_large_upload_mb * 2**20
        write_rows("gather.query: the result", list(result.keys()), partial(_rows, result), path, most_bytes)
    if path.stat().st_size == 0:
        raise InvalidInput("gather.query: it finds no rows; a run needs some to train on.")
    return Fetched(path, f"{_file_stem(source.connection)}.jsonl", {"connection": source.connection})


def _rows(result: CursorResult[Any], names: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    until = time.monotonic() + LONGEST_SECONDS
    wanted, count = list(names), 0
    for portion in result.mappings().partitions(_PORTION):
        count += len(portion)
        if count > MOST_ROWS:
            raise InvalidInput(f"gather.query: it finds more than {MOST_ROWS:,} rows; add a LIMIT or a condition.")
        if time.monotonic() > until:
            raise _late(LONGEST_SECONDS)
        for row in portion:
            yield {name: row[name] for name in wanted}


@contextmanager
def _result(source: SqlSource, organization: str, seconds: int) -> Iterator[CursorResult[Any]]:
    """The result of the query, rows of which have not been fetched yet."""
    connection = connections.sql_connection(source.connection, organization)
    engine = _engine(source.connection, connection.sql.get_secret_value())
    try:
        with _connected(engine, source.connection) as database:
            _only_read(database, seconds)
            # Without parameters a % in the query is a %.
            streamed = database.execution_options(stream_results=True, no_parameters=True, max_row_buffer=_PORTION)
            result = streamed.exec_driver_sql(source.query)
            if not result.returns_rows:
                raise InvalidInput("gather.query: it gives no rows; write a SELECT.")
            yield result
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "57014":  # query_canceled, by the timeout
            raise _late(seconds) from error
        if error.connection_invalidated:
            raise _away(source.connection) from error
        raise InvalidInput(f"gather.query: the database refuses it: {_reason(error.orig)}.") from error
    except SQLAlchemyError as error:
        raise InvalidInput(f"gather.query: its result cannot be read: {_reason(error)}.") from error
    finally:
        engine.dispose()


def _only_read(database: sqlalchemy.Connection, seconds: int) -> None:
    if database.dialect.name == "postgresql":
        database.execution_options(postgresql_readonly=True)
        database.exec_driver_sql(f"SET LOCAL statement_timeout = {seconds * 1000}")
    else:
        database.exec_driver_sql(_READ_ONLY[database.dialect.name])
        database.commit()  # MySQL's counts from the next transaction on


def _engine(name: str, address: str) -> sqlalchemy.Engine:
    try:
        url = make_url(address)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() not in ("postgresql", *_READ_ONLY):
            raise OperatorFileUnusable(
                f"EMISSARY_SOURCES, {name}.sql: of its kind of database no mode is known that only reads; give one of "
                "PostgreSQL, MySQL, MariaDB or SQLite."
            )
        if url.get_backend_name() == "sqlite":
            url = _of_a_file_that_is_there(url)
        limits = {"connect_timeout": 10} if url.get_backend_name() == "postgresql" else {}
        return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=limits, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise OperatorFileUnusable(
            f"EMISSARY_SOURCES, {name}.sql: it is no address of a database whose driver is installed; correct it."
        ) from error


def _of_a_file_that_is_there(url: URL) -> URL:
    """The address by which SQLite only reads a file; by another one it makes a file that is missing."""
    path = url.database
    if not path or path == ":memory:":
        return url
    return url.set(
        database=path if path.startswith("file:") else f"file:{quote(path)}",
        query=dict(url.query) | {"mode": "ro", "uri": "true"},
    )


@contextmanager
def _connected(engine: sqlalchemy.Engine, name: str) -> Iterator[sqlalchemy.Connection]:
    try:
        database = engine.connect()
    except DBAPIError as error:
        # Users are not told where the database is.
        log.warning("The connection %s of EMISSARY_SOURCES: %s", name, _reason(error.orig))
        raise _away(name) from error
    with database:
        yield database


def _away(name: str) -> EmissaryError:
    return Unavailable(
        f"gather.connection: the database of {name!r} does not take us in; have the operator see that it runs and that "
        "EMISSARY_SOURCES is right (the platform's log says more), then try again."
    )


def _late(seconds: int) -> _TooLate:
    return _TooLate(f"gather.query: it takes longer than {seconds} s; make it faster, or take less.")


def _reason(error: BaseException | None) -> str:
    """The first line of what a driver says, without the place in the query that follows."""
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else type(error).__name__
    return "".join(letter for letter in said if letter.isprintable())[:300].rstrip(".")


def _file_stem(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:90]
