"""metrics and plots of checkpoints"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("report", JSONB()))
