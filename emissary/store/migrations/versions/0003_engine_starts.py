"""when an engine began to start, and how long its last start took"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("engines", sa.Column("start_requested_at", sa.DateTime(timezone=True)))
    op.add_column("engines", sa.Column("start_seconds", sa.Float()))
