"""leftovers of deleted things; names of users are unique within their organization"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "leftovers",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("artifacts", postgresql.JSONB(), nullable=False),
        sa.Column("engine_id", sa.String()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.drop_constraint("users_name_key", "users")
    op.create_unique_constraint("users_organization_name", "users", ["organization_id", "name"])
