"""Alembic's environment: upgrades the catalogue under an advisory lock, so that two starters do not race."""

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from emissary.store import pipeline_tables  # noqa: F401 - the metadata are whole with them
from emissary.store.tables import Base

_LOCK = 7_266_001

engine = create_engine(context.config.attributes["url"], poolclass=NullPool)
with engine.begin() as connection:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
