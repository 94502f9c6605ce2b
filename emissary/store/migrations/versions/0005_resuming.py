"""leases of running flow runs; time limits; jobs that start from a checkpoint; why an upload was refused"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("flow_run_id", sa.Uuid(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("beats", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    for table in ("training_jobs", "engines", "deployments"):
        op.add_column(table, sa.Column("state_at", sa.DateTime(timezone=True)))
    # What has ended was ended by its run; null says of such a row that its run is still to be ended.
    op.execute("UPDATE training_jobs SET state_at = updated_at WHERE status = 'Cancelled'")
    op.execute("UPDATE deployments SET state_at = updated_at WHERE status IN ('Terminated', 'Cancelled')")
    op.add_column("training_jobs", sa.Column("timeout_seconds", sa.Integer()))
    op.add_column("training_jobs", sa.Column("started_at", sa.DateTime(timezone=True)))
    op.add_column("training_jobs", sa.Column("base_fine_tuned_model", sa.String()))
    op.add_column("training_jobs", sa.Column("base_fine_tuned_model_checkpoint", sa.Integer()))
    op.add_column("training_jobs", sa.Column("parent_id", sa.String(), sa.ForeignKey("training_jobs.id")))
    op.add_column("uploads", sa.Column("refused", sa.String()))
