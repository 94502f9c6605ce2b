"""training jobs told to trackers, and pushed to the Hugging Face hub"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "tracked_jobs",
        sa.Column(
            "training_job_id", sa.String(), sa.ForeignKey("training_jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("tracker", sa.String(), primary_key=True),
        sa.Column("status", sa.String()),
        *(
            sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
            for name in ("created_at", "updated_at")
        ),
    )
    op.add_column("training_jobs", sa.Column("push_to_hub", JSONB()))
    op.add_column("training_jobs", sa.Column("pushed_to_hub", JSONB()))
