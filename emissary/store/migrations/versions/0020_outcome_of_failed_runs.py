"""events of failed pipeline runs say the outcome that the API says"""

from alembic import op

revision = "0020"
down_revision = "0019"

_PIPELINE_RUNS = """
CREATE OR REPLACE FUNCTION announce_pipeline_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    data jsonb := jsonb_build_object(
        'id', NEW.id, 'project_id', NEW.project_id, 'pipeline_id', NEW.pipeline_id,
        'name', (SELECT name FROM pipelines WHERE id = NEW.pipeline_id), 'status', NEW.status,
        'outcome', CASE NEW.status WHEN 'Failed' THEN 'Failed' ELSE NEW.outcome END,
        'reason', CASE NEW.status WHEN 'Failed' THEN NEW.error ELSE NEW.reason END,
        'trigger', NEW.trigger, 'training_job_id', NEW.training_job_id, 'decision', NEW.decision,
        'approval', NEW.approval);
BEGIN
    IF NEW.outcome IS NOT NULL AND NEW.outcome IS DISTINCT FROM OLD.outcome THEN
        PERFORM announce(NEW.project_id, 'pipeline_run.' || CASE NEW.outcome
            WHEN 'NotPromoted' THEN 'not_promoted' WHEN 'RolledBack' THEN 'rolled_back' ELSE lower(NEW.outcome) END,
            data);
    END IF;
    IF NEW.status <> OLD.status AND NEW.status IN ('Failed', 'Cancelled') THEN
        PERFORM announce(NEW.project_id, 'pipeline_run.' || lower(NEW.status), data);
    END IF;
    IF nullif(OLD.approval, 'null') IS NULL AND nullif(NEW.approval, 'null') IS NOT NULL THEN
        PERFORM announce(NEW.project_id, 'pipeline_run.waiting', data);
    END IF;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.execute(_PIPELINE_RUNS)
