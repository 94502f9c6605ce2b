"""The catalogue's tables of pipelines, of what starts them, and of who is told."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from emissary.store.tables import Base, FlowBacked, Json


class Pipeline(Base):
    """What is done again and again: gather data, train, compare with what is deployed, deploy what is better."""

    __tablename__ = "pipelines"
    __table_args__ = (UniqueConstraint("project_id", "name", name="pipelines_project_name"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    paused: Mapped[bool]
    config: Mapped[Json]
    """The fields of `PipelineCreate`. What it names may be deleted; the next run says so then."""
    changed_at: Mapped[datetime | None]
    """When what it makes of its data was last changed; what runs had before is new again."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class PipelineRun(FlowBacked, Base):
    """One run of a pipeline; each column below `looked` is filled when that step is done."""

    __tablename__ = "pipeline_runs"
    __table_args__ = (
        Index("pipeline_runs_pipeline", "pipeline_id", "created_at"),
        Index("pipeline_runs_job", "training_job_id"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    pipeline_id: Mapped[str] = mapped_column(ForeignKey("pipelines.id"))
    trigger: Mapped[str]
    """`request`, `schedule`, `webhook` or `dataset`."""
    trigger_id: Mapped[str | None]
    """The webhook or dataset that began it, which may be gone."""
    requested: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    """Ids of datasets to use instead of the pipeline's."""
    requested_objects: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    """Keys of objects to fetch from the pipeline's S3 prefix instead of all that are new."""
    looked: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether it has begun to look for its data, and so may miss what comes from then on."""
    gathered: Mapped[list[Json] | None]
    """The datasets' `id` and `sha256`, the oldest first."""
    train_dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    merged: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether the training dataset was made of the gathered ones, by this run."""
    training_job_id: Mapped[str | None] = mapped_column(ForeignKey("training_jobs.id", ondelete="SET NULL"))
    decision: Mapped[Json | None]
    """The fields of `Decision`."""
    approval: Mapped[Json | None]
    """The fields of `Approval`, once a person is asked."""
    promotion: Mapped[Json | None]
    """The fields of `Promotion`, once a deployment is to be changed."""
    outcome: Mapped[str | None]
    """`Skipped`, `Promoted`, `NotPromoted` or `RolledBack`, once that is so."""
    reason: Mapped[str | None]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class Webhook(Base):
    """An address at which another system starts a pipeline. It goes with the pipeline."""

    __tablename__ = "webhooks"
    __table_args__ = (UniqueConstraint("pipeline_id", "name", name="webhooks_pipeline_name"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    pipeline_id: Mapped[str] = mapped_column(ForeignKey("pipelines.id", ondelete="CASCADE"))
    name: Mapped[str]
    scheme: Mapped[str]
    """`standard`, `github` or `token`."""
    parameters: Mapped[Json]
    """The fields of `WebhookParameters` that are given."""
    version: Mapped[int] = mapped_column(server_default=text("1"))
    """Counts its secrets, each of which is derived from this number."""
    previous_until: Mapped[datetime | None]
    """Until when the secret of the version before works."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class WebhookDelivery(Base):
    """Something that was sent to a webhook, and the run that it began or joined."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "delivery_id", name="webhook_deliveries_delivery"),
        Index("webhook_deliveries_webhook", "webhook_id", "created_at"),
        Index("webhook_deliveries_pipeline_run", "pipeline_run_id"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    delivery_id: Mapped[str | None]
    """What the sender calls it."""
    body_sha256: Mapped[str]
    pipeline_run_id: Mapped[str] = mapped_column(ForeignKey("pipeline_runs.id", ondelete="CASCADE"))


class Subscription(Base):
    """An address, or a notification block of Prefect, that is told of a project's events."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        UniqueConstraint("project_id", "name", name="subscriptions_project_name"),
        CheckConstraint("num_nonnulls(url, block) = 1", "subscriptions_target"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    description: Mapped[str | None]
    url: Mapped[str | None]
    block: Mapped[str | None]
    """Type and name of the block, such as `slack-webhook/ops`."""
    events: Mapped[list[str]]
    paused: Mapped[bool]
    paused_reason: Mapped[str | None]
    """Why, where nobody paused it: the receiver wants nothing more."""
    version: Mapped[int] = mapped_column(server_default=text("1"))
    """Counts its secrets, each of which is derived from this number."""
    previous_until: Mapped[datetime | None]
    """Until when it is signed by the secret of the version before, too."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class SubscriptionDelivery(Base):
    """One event for one subscription. A trigger of the database writes it in the transaction in which the event happens
    (migration 0013).
    """

    __tablename__ = "subscription_deliveries"
    __table_args__ = (
        Index("subscription_deliveries_subscription", "subscription_id", "created_at"),
        Index("subscription_deliveries_due", "next_attempt_at", postgresql_where=text("status = 'Pending'")),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id", ondelete="CASCADE"))
    event: Mapped[str]
    data: Mapped[Json]
    status: Mapped[str] = mapped_column(server_default=text("'Pending'"))
    """`Pending`, `Delivered` or `Dead`."""
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime]
    """While it is sent: when it is sent again where the sender dies."""
    give_up_at: Mapped[datetime]
    attempted_at: Mapped[datetime | None]
    answer: Mapped[str | None]
    """What came of the last attempt."""
