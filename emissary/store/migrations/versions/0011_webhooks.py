"""webhooks, their deliveries, and what began a pipeline's run"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"


def _times() -> list[sa.Column[Any]]:
    return [
        sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
        for name in ("created_at", "updated_at")
    ]


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("pipeline_id", sa.String(), sa.ForeignKey("pipelines.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scheme", sa.String(), nullable=False),
        sa.Column("parameters", JSONB(), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("previous_until", sa.DateTime(timezone=True)),
        sa.Column("created_by", sa.String(), sa.ForeignKey("users.id"), nullable=False),
        *_times(),
        sa.UniqueConstraint("pipeline_id", "name", name="webhooks_pipeline_name"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("webhook_id", sa.String(), sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("delivery_id", sa.String()),
        sa.Column("body_sha256", sa.String(), nullable=False),
        sa.Column(
            "pipeline_run_id", sa.String(), sa.ForeignKey("pipeline_runs.id", ondelete="CASCADE"), nullable=False
        ),
        *_times(),
        sa.UniqueConstraint("webhook_id", "delivery_id", name="webhook_deliveries_delivery"),
    )
    op.create_index("webhook_deliveries_webhook", "webhook_deliveries", ["webhook_id", "created_at"])
    op.create_index("webhook_deliveries_pipeline_run", "webhook_deliveries", ["pipeline_run_id"])
    op.add_column("pipeline_runs", sa.Column("trigger_id", sa.String()))
    # JSON's null and none at all meant the same.
    op.execute("UPDATE pipeline_runs SET requested = NULL WHERE requested = 'null'")
