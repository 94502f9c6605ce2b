"""The catalogue's PostgreSQL: connection, session, schema upgrade, and the embedded server."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import alembic.command
import alembic.config
import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from emissary.errors import Unavailable
from emissary.settings import Settings, settings
from emissary.store.embedded_server import embedded_server, kept_running

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


@dataclass
class _Shared:
    session: AsyncSession
    afterwards: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


_shared: ContextVar[_Shared | None] = ContextVar("shared transaction", default=None)


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncSession]:
    """One transaction: committed when the block ends well, rolled back when it raises.

    Inside `one_transaction()` it is a part of that.
    """
    if (shared := _shared.get()) is not None:
        yield shared.session
        await shared.session.flush()
        return
    async with _sessions().begin() as session:
        yield session


@asynccontextmanager
async def one_transaction() -> AsyncIterator[AsyncSession]:
    """Makes all `transaction()` blocks inside one: they are committed together, or none of them."""
    async with _sessions().begin() as session:
        shared = _Shared(session)
        token = _shared.set(shared)
        try:
            yield session
        finally:
            _shared.reset(token)
    for action in shared.afterwards:
        await action()


async def after_commit(action: Callable[[], Awaitable[None]]) -> None:
    """Do `action` once what was written is committed: now, or at the end of `one_transaction()`."""
    if (shared := _shared.get()) is not None:
        shared.afterwards.append(action)
    else:
        await action()


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
def catalogue_server(chosen: Settings) -> Iterator[str]:
    """Yields the catalogue's `postgresql://…` address: EMISSARY_DATABASE_URL, else an embedded server's.

    The embedded one runs on EMISSARY_HOME/postgres.
    """
    if chosen.database_url is not None:
        yield chosen.database_url
        return
    with embedded_server(chosen.home / "postgres") as server, kept_running(server):
        yield companion_database(server.get_uri(), "emissary")


def companion_database(address: str, name: str) -> str:
    """The address of the database `name` on the server of `address`, created when it is missing."""
    url = make_url(address)
    admin = sqlalchemy.create_engine(
        url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )
    with admin.connect() as connection:
        known = connection.scalar(sqlalchemy.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name})
        if not known:
            quoted = admin.dialect.identifier_preparer.quote(name)
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {quoted}"))
    admin.dispose()
    return url.set(database=name).render_as_string(hide_password=False)
