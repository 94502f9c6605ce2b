"""pipelines and their runs"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"


def _times() -> list[sa.Column[Any]]:
    return [
        sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
        for name in ("created_at", "updated_at")
    ]


def upgrade() -> None:
    op.create_table(
        "pipelines",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("project_id", sa.String(), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("config", JSONB(), nullable=False),
        sa.Column("created_by", sa.String(), sa.ForeignKey("users.id"), nullable=False),
        *_times(),
        sa.UniqueConstraint("project_id", "name", name="pipelines_project_name"),
    )
    op.create_table(
        "pipeline_runs",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("error", sa.String()),
        sa.Column("flow_run_id", sa.Uuid(), unique=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("crashes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("state_at", sa.DateTime(timezone=True)),
        sa.Column("project_id", sa.String(), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("pipeline_id", sa.String(), sa.ForeignKey("pipelines.id"), nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("requested", JSONB()),
        sa.Column("gathered", JSONB()),
        sa.Column("train_dataset_id", sa.String(), sa.ForeignKey("datasets.id", ondelete="SET NULL")),
        sa.Column("merged", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("training_job_id", sa.String(), sa.ForeignKey("training_jobs.id", ondelete="SET NULL")),
        sa.Column("decision", JSONB()),
        sa.Column("outcome", sa.String()),
        sa.Column("reason", sa.String()),
        sa.Column("created_by", sa.String(), sa.ForeignKey("users.id"), nullable=False),
        *_times(),
    )
    op.create_index("pipeline_runs_pipeline", "pipeline_runs", ["pipeline_id", "created_at"])
