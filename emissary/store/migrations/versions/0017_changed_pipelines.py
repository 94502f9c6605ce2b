"""to a pipeline that was changed, what its runs had before is new again"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("pipelines", sa.Column("changed_at", sa.DateTime(timezone=True)))
