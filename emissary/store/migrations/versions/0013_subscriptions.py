"""subscriptions, and the triggers that write what they are told into their deliveries"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"

# The lock has a subscription that is being deleted be left out, where its row would break the foreign key.
_ANNOUNCE = """
CREATE FUNCTION announce(project text, event text, data jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO subscription_deliveries (id, subscription_id, event, data, next_attempt_at, give_up_at)
    SELECT 'sd-' || replace(gen_random_uuid()::text, '-', ''), subscriptions.id, event, data, now(),
           now() + interval '1 day'
    FROM subscriptions
    WHERE subscriptions.project_id = project AND NOT subscriptions.paused AND subscriptions.events ? event
    FOR KEY SHARE
$$
"""
_TRAINING_JOBS = """
CREATE FUNCTION announce_training_job() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    data jsonb := jsonb_build_object(
        'id', NEW.id, 'project_id', NEW.project_id, 'name', NEW.name, 'status', NEW.status, 'error', NEW.error,
        'base_model', NEW.base_model, 'best_checkpoint', NEW.best_checkpoint,
        'scores', (SELECT scores FROM checkpoints WHERE training_job_id = NEW.id AND number = NEW.best_checkpoint));
BEGIN
    IF OLD.started_at IS NULL AND NEW.started_at IS NOT NULL THEN
        PERFORM announce(NEW.project_id, 'training_job.started', data);
    END IF;
    IF NEW.status <> OLD.status AND NEW.status IN ('Success', 'Failed', 'TimedOut', 'Cancelled') THEN
        PERFORM announce(NEW.project_id, 'training_job.' || CASE NEW.status
            WHEN 'Success' THEN 'succeeded' WHEN 'TimedOut' THEN 'timed_out' ELSE lower(NEW.status) END, data);
    END IF;
    RETURN NULL;
END $$
"""
_ON_TRAINING_JOBS = """
CREATE TRIGGER announce AFTER UPDATE OF status, started_at ON training_jobs
    FOR EACH ROW EXECUTE FUNCTION announce_training_job()
"""
_DEPLOYMENTS = """
CREATE FUNCTION announce_deployment() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    gone text[] := ARRAY['Terminated', 'Failed', 'Cancelled', 'TimedOut'];
    served deployments;
    data jsonb;
BEGIN
    IF TG_OP = 'DELETE' THEN
        served := OLD;
    ELSE
        served := NEW;
    END IF;
    data := jsonb_build_object(
        'id', served.id, 'project_id', served.project_id, 'name', served.name, 'status', served.status,
        'error', served.error, 'base_model', served.base_model, 'training_job_id', served.training_job_id,
        'checkpoint', served.checkpoint);
    IF TG_OP = 'DELETE' THEN
        IF OLD.status <> ALL (gone) THEN
            PERFORM announce(OLD.project_id, 'deployment.deleted', data || '{"status": "Terminated"}');
        END IF;
        RETURN NULL;
    END IF;
    IF NEW.status <> OLD.status AND NEW.status <> ALL (ARRAY['Pending', 'Deploying', 'Reactivating']) THEN
        PERFORM announce(NEW.project_id, 'deployment.' || CASE
            WHEN NEW.status = 'Terminated' THEN 'deleted'
            WHEN NEW.status = ANY (gone) THEN 'failed'
            WHEN NEW.status = 'Deactivated' THEN 'deactivated'
            WHEN OLD.status IN ('Pending', 'Deploying') THEN 'deployed'
            ELSE 'reactivated' END, data);
    END IF;
    IF NEW.checkpoint <> OLD.checkpoint
        OR (NEW.training_job_id IS NOT NULL AND NEW.training_job_id IS DISTINCT FROM OLD.training_job_id) THEN
        PERFORM announce(NEW.project_id, 'deployment.updated', data);
    END IF;
    RETURN NULL;
END $$
"""
_ON_DEPLOYMENTS = """
CREATE TRIGGER announce AFTER DELETE OR UPDATE OF status, training_job_id, checkpoint ON deployments
    FOR EACH ROW EXECUTE FUNCTION announce_deployment()
"""
_PIPELINE_RUNS = """
CREATE FUNCTION announce_pipeline_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    data jsonb := jsonb_build_object(
        'id', NEW.id, 'project_id', NEW.project_id, 'pipeline_id', NEW.pipeline_id,
        'name', (SELECT name FROM pipelines WHERE id = NEW.pipeline_id), 'status', NEW.status,
        'outcome', NEW.outcome, 'reason', CASE NEW.status WHEN 'Failed' THEN NEW.error ELSE NEW.reason END,
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
_ON_PIPELINE_RUNS = """
CREATE TRIGGER announce AFTER UPDATE OF status, outcome, approval ON pipeline_runs
    FOR EACH ROW EXECUTE FUNCTION announce_pipeline_run()
"""


def _time(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _times() -> list[sa.Column[Any]]:
    return [
        sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
        for name in ("created_at", "updated_at")
    ]


def upgrade() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("project_id", sa.String(), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String()),
        sa.Column("url", sa.String()),
        sa.Column("block", sa.String()),
        sa.Column("events", JSONB(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("paused_reason", sa.String()),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        _time("previous_until"),
        sa.Column("created_by", sa.String(), sa.ForeignKey("users.id"), nullable=False),
        *_times(),
        sa.UniqueConstraint("project_id", "name", name="subscriptions_project_name"),
        sa.CheckConstraint("num_nonnulls(url, block) = 1", "subscriptions_target"),
    )
    op.create_table(
        "subscription_deliveries",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column(
            "subscription_id", sa.String(), sa.ForeignKey("subscriptions.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("data", JSONB(), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'Pending'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("give_up_at", sa.DateTime(timezone=True), nullable=False),
        _time("attempted_at"),
        sa.Column("answer", sa.String()),
        *_times(),
    )
    op.create_index(
        "subscription_deliveries_subscription", "subscription_deliveries", ["subscription_id", "created_at"]
    )
    op.create_index(
        "subscription_deliveries_due",
        "subscription_deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("status = 'Pending'"),
    )
    for statement in (
        _ANNOUNCE,
        _TRAINING_JOBS,
        _ON_TRAINING_JOBS,
        _DEPLOYMENTS,
        _ON_DEPLOYMENTS,
        _PIPELINE_RUNS,
        _ON_PIPELINE_RUNS,
    ):
        op.execute(statement)
