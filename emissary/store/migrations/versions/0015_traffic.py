"""captured traffic of deployments"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("deployments", sa.Column("capture", JSONB()))
    op.add_column("deployments", sa.Column("capture_lost", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.execute("CREATE SEQUENCE traffic_entries_revision")
    op.create_table(
        "traffic_entries",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("deployment_id", sa.String(), sa.ForeignKey("deployments.id", ondelete="CASCADE"), nullable=False),
        sa.Column("answer_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("input", JSONB(), nullable=False),
        sa.Column("output", JSONB(), nullable=False),
        sa.Column("correction", JSONB()),
        sa.Column("state", sa.String(), server_default=sa.text("'unreviewed'"), nullable=False),
        sa.Column("reviewed_by", sa.String(), sa.ForeignKey("users.id")),
        sa.Column("reviewed_at", sa.DateTime(timezone=True)),
        sa.Column(
            "revision", sa.BigInteger(), server_default=sa.text("nextval('traffic_entries_revision')"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
            for name in ("created_at", "updated_at")
        ),
    )
    op.execute("ALTER SEQUENCE traffic_entries_revision OWNED BY traffic_entries.revision")
    op.create_index("traffic_entries_deployment", "traffic_entries", ["deployment_id", "created_at"])
    op.create_index("traffic_entries_answer", "traffic_entries", ["deployment_id", "answer_id"])
    op.create_index("traffic_entries_expires", "traffic_entries", ["expires_at"])
