"""flow runs and profiles of datasets; what was prepared by a dataset's id is removed, for it is kept by content now"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("datasets", sa.Column("status", sa.String(), server_default=sa.text("'Pending'"), nullable=False))
    op.add_column("datasets", sa.Column("error", sa.String()))
    op.add_column("datasets", sa.Column("flow_run_id", sa.Uuid()))
    op.create_unique_constraint("datasets_flow_run_id_key", "datasets", ["flow_run_id"])
    for count, start in (("attempt", "1"), ("crashes", "0")):
        op.add_column("datasets", sa.Column(count, sa.Integer(), server_default=sa.text(start), nullable=False))
    op.add_column("datasets", sa.Column("state_at", sa.DateTime(timezone=True)))
    op.add_column("datasets", sa.Column("profile", postgresql.JSONB()))
    op.add_column("datasets", sa.Column("profile_artifact", sa.String()))
    op.create_index("datasets_sha256", "datasets", ["sha256"])
    op.execute(
        "INSERT INTO leftovers (id, artifacts) SELECT 'prepared-' || id, jsonb_build_array('prepared/' || id) "
        "FROM datasets ON CONFLICT DO NOTHING"
    )
