"""testing functions that ask a deployment"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("testing_functions", sa.Column("judge", JSONB()))
    op.alter_column("testing_functions", "content", nullable=True)
    op.create_check_constraint("testing_functions_kind", "testing_functions", "num_nonnulls(content, judge) = 1")
