"""rows of an upload that cannot be used: whether they are left out, and which they were"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("uploads", sa.Column("on_invalid", sa.String(), server_default="refuse", nullable=False))
    op.add_column("uploads", sa.Column("refused_details", JSONB()))
