"""The catalogue's tables. Rows say what a thing is; `status` is written by the projection of flow-run states."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from emissary.data.rows import OnInvalid, TaskType

Json = dict[str, Any]

TERMINAL = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})
"""Status of training jobs that have ended."""

GONE = ("Terminated", "Failed", "Cancelled", "TimedOut")
"""Status of deployments that are no longer served; their names are free again."""


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        Json: JSONB,
        list[str]: JSONB,
        list[Json]: JSONB,
        datetime: DateTime(timezone=True),
        str: String,
    }

    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), sort_order=90)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now(), sort_order=91)


class FlowBacked:
    """What a row has whose state is that of a Prefect flow run."""

    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    error: Mapped[str | None]
    flow_run_id: Mapped[UUID | None] = mapped_column(unique=True)
    attempt: Mapped[int] = mapped_column(server_default=text("1"))
    """Counts flow runs of this row (an engine that is reactivated gets a new one)."""
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    """Crashes in a row, with nothing completed in between."""
    state_at: Mapped[datetime | None]
    """When the flow run came into the state that `status` shows; what is older is not applied any more. Null on a row
    that was cancelled in the catalogue: its run is still to be ended."""


class Organization(Base):
    """Users who share projects and engines; one organization knows nothing of another."""

    __tablename__ = "organizations"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class User(Base):
    """A person or program that holds keys."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("organization_id", "name", name="users_organization_name"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]


class ApiKey(Base):
    """A key, of which only the SHA-256 is kept."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    role: Mapped[str]
    """`admin`, `member` or `read-only`."""
    sha256: Mapped[str] = mapped_column(unique=True)
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class IdempotentAnswer(Base):
    """What a creating request with an Idempotency-Key was answered, kept for a day."""

    __tablename__ = "idempotent_answers"
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    """Of method, path and body."""
    status: Mapped[int]
    body: Mapped[Json]


class Project(Base):
    """A workspace: datasets, training jobs and deployments live in one."""

    __tablename__ = "projects"
    __table_args__ = (Index("projects_organization", "organization_id", "created_at"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class Dataset(FlowBacked, Base):
    """An uploaded file that has been validated; its bytes are in the artifact store under `artifact`.

    Its flow run makes the profile; the dataset can be used before, and where that fails.
    """

    __tablename__ = "datasets"
    __table_args__ = (
        Index("datasets_project", "project_id", "created_at"),
        Index("datasets_sha256", "sha256"),
    )
    status: Mapped[str] = mapped_column(server_default=text("'Pending'"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    file_name: Mapped[str]
    artifact: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    report: Mapped[Json]
    """What validation found."""
    profile: Mapped[Json | None] = mapped_column(deferred=True)
    """What its rows are like, beyond the report; null until that is known."""
    profile_artifact: Mapped[str | None]
    """The artifact of the profile and its plots."""
    upload_by: Mapped[str] = mapped_column(ForeignKey("users.id"))

    @property
    def is_profiled(self) -> bool:
        """Whether its profile is known."""
        return self.profile_artifact is not None


class TrainingJob(FlowBacked, Base):
    """A fine-tuning job; its checkpoints are rows of their own."""

    __tablename__ = "training_jobs"
    __table_args__ = (Index("training_jobs_project", "project_id", "created_at"),)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    description: Mapped[str | None]
    training_technique: Mapped[str]
    task_type: Mapped[str]
    base_model_option: Mapped[str]
    base_model: Mapped[str]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("training_jobs.id"))
    """The job whose checkpoint `base_fine_tuned_model_checkpoint` this one starts from, while it is there."""
    base_fine_tuned_model: Mapped[str | None]
    """The parent's name, which stays when the parent is deleted."""
    base_fine_tuned_model_checkpoint: Mapped[int | None]
    train_dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    test_dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    train_test_split_ratio: Mapped[float | None]
    test_functions: Mapped[list[str]]
    reward_functions: Mapped[Json | None]
    """GRPO: testing function → weight; the weights sum to 1."""
    rebalance_data: Mapped[Json | None]
    hyper_parameters: Mapped[Json]
    progress: Mapped[int] = mapped_column(server_default=text("0"))
    training_loss: Mapped[list[Json]] = mapped_column(server_default=text("'[]'"))
    best_checkpoint: Mapped[int | None]
    timeout_seconds: Mapped[int | None]
    push_to_hub: Mapped[Json | None] = mapped_column(JSONB(none_as_null=True))
    """The fields of `PushToHub`: where its best checkpoint goes at its end."""
    pushed_to_hub: Mapped[Json | None] = mapped_column(JSONB(none_as_null=True))
    """The fields of `PushedToHub`: the last push that was done."""
    started_at: Mapped[datetime | None]
    """When its run first began; `timeout_seconds` count from then."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    train_dataset: Mapped[Dataset] = relationship(foreign_keys=[train_dataset_id], lazy="raise")
    test_dataset: Mapped[Dataset | None] = relationship(foreign_keys=[test_dataset_id], lazy="raise")


class Checkpoint(Base):
    """A complete adapter of a training job; listed only once its manifest is published."""

    __tablename__ = "checkpoints"
    training_job_id: Mapped[str] = mapped_column(ForeignKey("training_jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    artifact: Mapped[str]
    train_loss: Mapped[float | None]
    test_loss: Mapped[float | None]
    scores: Mapped[Json | None]
    report: Mapped[Json | None]
    """`metrics` over the whole test set, `class_metrics`, the names of the `plots` in the results, and `test_summary`
    by testing function; null, or without it, where an earlier version tested."""
    results_artifact: Mapped[str | None]


class TrackedJob(Base):
    """A training job that a tracker (MLflow, Weights & Biases) is told of, from when it was first seen."""

    __tablename__ = "tracked_jobs"
    training_job_id: Mapped[str] = mapped_column(ForeignKey("training_jobs.id", ondelete="CASCADE"), primary_key=True)
    tracker: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str | None]
    """The status of the job, ended, when the tracker had been told everything; null before."""


class Engine(FlowBacked, Base):
    """An inference engine: one base model, many adapters, served by a long-lived flow run."""

    __tablename__ = "engines"
    __table_args__ = (Index("engines_organization", "organization_id", "created_at"),)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    base_model: Mapped[str]
    task_type: Mapped[str]
    resource_management_config: Mapped[Json]
    endpoint: Mapped[str | None]
    """http://host:port of the server inside the flow run, while it is Active."""
    last_access_at: Mapped[datetime | None]
    start_requested_at: Mapped[datetime | None]
    """When it last began to start, or to start again after a crash."""
    start_seconds: Mapped[float | None]
    """How long its last start took until it was Active."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class Deployment(FlowBacked, Base):
    """A name under which a checkpoint (or, with checkpoint 0, a base model) is called."""

    __tablename__ = "deployments"
    __table_args__ = (
        Index("deployments_project", "project_id", "created_at"),
        Index(
            "deployments_live_name",
            "organization_id",
            "name",
            unique=True,
            postgresql_where=text("status NOT IN ('Terminated', 'Failed', 'Cancelled', 'TimedOut')"),
        ),
        Index("deployments_engine", "engine_id"),
    )
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    description: Mapped[str | None]
    base_model: Mapped[str]
    task_type: Mapped[str]
    training_job_id: Mapped[str | None] = mapped_column(ForeignKey("training_jobs.id"))
    checkpoint: Mapped[int]
    engine_id: Mapped[str] = mapped_column(ForeignKey("engines.id"))
    capture: Mapped[Json | None] = mapped_column(JSONB(none_as_null=True))
    """The fields of `Capture`; null: nothing is kept of its traffic."""
    capture_lost: Mapped[int] = mapped_column(server_default=text("0"))
    """Counts answers that were to be kept and were not."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    engine: Mapped[Engine] = relationship(lazy="raise")


class TrafficEntry(Base):
    """One input that a deployment was asked, and its answer. It goes with the deployment."""

    __tablename__ = "traffic_entries"
    __table_args__ = (
        Index("traffic_entries_deployment", "deployment_id", "created_at"),
        Index("traffic_entries_answer", "deployment_id", "answer_id"),
        Index("traffic_entries_expires", "expires_at"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id", ondelete="CASCADE"))
    answer_id: Mapped[str]
    """What the answer is called where the client got it; those to several inputs share it."""
    position: Mapped[int]
    input: Mapped[Json]
    """The fields of a dataset's row but the answer."""
    output: Mapped[Any] = mapped_column(JSONB)
    """What was answered, as a dataset's row has it."""
    correction: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    """What would have been right."""
    state: Mapped[str] = mapped_column(server_default=text("'unreviewed'"))
    """`unreviewed`, `accepted` or `corrected`."""
    reviewed_by: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    reviewed_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("nextval('traffic_entries_revision')"))
    """Grows over all entries, and is taken anew at each change, under a lock on the deployment."""
    expires_at: Mapped[datetime]


class Lease(Base):
    """Who works for the row `id` now (a training job, an engine, a deployment): the holder of the newest token.

    Whoever takes the row over gets a higher token; the one before finds that out before it publishes anything.
    """

    __tablename__ = "leases"
    id: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[int] = mapped_column(BigInteger)
    flow_run_id: Mapped[UUID]
    holder: Mapped[str]
    """host:pid:start of the process."""
    beats: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Grows every few seconds while the process lives."""


class TestingFunction(Base):
    """A testing function that an organization added; those that ship are files."""

    __tablename__ = "testing_functions"
    __table_args__ = (
        Index("testing_functions_name", "organization_id", "name", unique=True),
        CheckConstraint("num_nonnulls(content, judge) = 1", "testing_functions_kind"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    content: Mapped[str | None]
    dependencies: Mapped[list[str]]
    judge: Mapped[Json | None] = mapped_column(JSONB(none_as_null=True))
    """What a judge asks, in place of `content`; as `emissary.judges.Judge`."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class JobEvent(Base):
    """Something that happened to a training job."""

    __tablename__ = "job_events"
    __table_args__ = (Index("job_events_job", "training_job_id", "id"),)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    training_job_id: Mapped[str] = mapped_column(ForeignKey("training_jobs.id"))
    kind: Mapped[str]
    details: Mapped[Json]


class Upload(Base):
    """A dataset file that comes in parts; kept for a day, or until it is given up."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    dataset_id: Mapped[str] = mapped_column(unique=True)
    """The dataset that it becomes; there is one once it is complete."""
    name: Mapped[str]
    file_name: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    part_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[Json]
    """What the artifact store needs to go on with it."""
    refused: Mapped[str | None]
    """Why the file cannot be used; it is removed then."""
    refused_details: Mapped[Json | None]
    """Which of its rows cannot."""
    on_invalid: Mapped[OnInvalid] = mapped_column(String, server_default="refuse")
    """What is done with rows that cannot be used."""
    task_type: Mapped[TaskType | None] = mapped_column(String)
    """What every row is to fit; without it, what most of them do."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class Leftover(Base):
    """What a deleted thing has outside the catalogue, kept until that is gone for sure; `id` is the deleted thing's."""

    __tablename__ = "leftovers"
    id: Mapped[str] = mapped_column(primary_key=True)
    artifacts: Mapped[list[str]]
    """Keys, or prefixes of keys, in the artifact store."""
    engine_id: Mapped[str | None]
    """The engine that may still hold it as an adapter."""
