"""pipelines' runs that wait for a person, and are watched after a promotion"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("pipeline_runs", sa.Column("approval", JSONB()))
    op.add_column("pipeline_runs", sa.Column("promotion", JSONB()))
