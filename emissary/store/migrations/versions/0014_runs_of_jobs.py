"""the run of a pipeline that made a training job is found by the job"""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_index("pipeline_runs_job", "pipeline_runs", ["training_job_id"])
