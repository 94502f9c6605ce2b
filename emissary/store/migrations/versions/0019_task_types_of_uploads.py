"""the task type that all rows of an upload are to fit"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("uploads", sa.Column("task_type", sa.String()))
