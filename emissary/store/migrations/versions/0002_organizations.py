"""organizations, roles of keys, idempotent answers, added testing functions, job events, uploads in parts"""

import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_LIVE = "status NOT IN ('Terminated', 'Failed', 'Cancelled', 'TimedOut')"


def _times() -> list[sa.Column[Any]]:
    return [
        sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
        for name in ("created_at", "updated_at")
    ]


def upgrade() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False, unique=True),
        *_times(),
    )
    default = f"org-{secrets.token_hex(11)}"
    op.execute(sa.text("INSERT INTO organizations (id, name) VALUES (:id, 'default')").bindparams(id=default))
    for table in ("users", "projects", "engines", "deployments"):
        op.add_column(table, sa.Column("organization_id", sa.String(), sa.ForeignKey("organizations.id")))
        op.execute(sa.text(f"UPDATE {table} SET organization_id = :id").bindparams(id=default))  # noqa: S608
        op.alter_column(table, "organization_id", nullable=False)
    op.create_index("projects_organization", "projects", ["organization_id", "created_at"])
    op.create_index("engines_organization", "engines", ["organization_id", "created_at"])
    op.create_index("deployments_engine", "deployments", ["engine_id"])
    op.drop_index("deployments_live_name", "deployments")
    op.create_index(
        "deployments_live_name",
        "deployments",
        ["organization_id", "name"],
        unique=True,
        postgresql_where=sa.text(_LIVE),
    )
    op.add_column("api_keys", sa.Column("role", sa.String(), nullable=False, server_default="admin"))
    op.alter_column("api_keys", "role", server_default=None)
    for column in ("reward_functions", "rebalance_data"):
        op.add_column("training_jobs", sa.Column(column, postgresql.JSONB()))
    op.create_table(
        "idempotent_answers",
        sa.Column("organization_id", sa.String(), sa.ForeignKey("organizations.id"), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("request_sha256", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        *_times(),
    )
    op.create_table(
        "testing_functions",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("organization_id", sa.String(), sa.ForeignKey("organizations.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("dependencies", postgresql.JSONB(), nullable=False),
        sa.Column("created_by", sa.String(), sa.ForeignKey("users.id"), nullable=False),
        *_times(),
    )
    op.create_index("testing_functions_name", "testing_functions", ["organization_id", "name"], unique=True)
    op.create_table(
        "job_events",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=True),
        sa.Column("training_job_id", sa.String(), sa.ForeignKey("training_jobs.id"), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        *_times(),
    )
    op.create_index("job_events_job", "job_events", ["training_job_id", "id"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("project_id", sa.String(), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=False, unique=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("file_name", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", postgresql.JSONB(), nullable=False),
        sa.Column("created_by", sa.String(), sa.ForeignKey("users.id"), nullable=False),
        *_times(),
    )
