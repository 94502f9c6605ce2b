"""objects that a pipeline's run is to fetch, and whether it has looked for its data"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("pipeline_runs", sa.Column("requested_objects", JSONB()))
    # Of runs that there are nobody knows, so nothing joins them.
    op.add_column("pipeline_runs", sa.Column("looked", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.alter_column("pipeline_runs", "looked", server_default=sa.text("false"))
