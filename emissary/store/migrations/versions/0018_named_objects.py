"""objects that a pipeline's run is to fetch"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("pipeline_runs", sa.Column("requested_objects", JSONB()))
