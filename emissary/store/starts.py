"""What a training job starts from: a base model, or the adapter of an earlier job's checkpoint on one."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from emissary import base_models, hub_models
from emissary.base_models import BaseModelEntry
from emissary.errors import InvalidInput
from emissary.schemas.training_jobs import TrainingJobCreate
from emissary.store.tables import TERMINAL, Checkpoint, Dataset, Project, TrainingJob

Technique = Literal["SFT", "GRPO"]
FIXED = ("lora_r", "lora_alpha")
"""Hyperparameters that the weights of an adapter have been made with."""


@dataclass(frozen=True)
class Start:
    """A base model, and where training goes on with an adapter of it, the job that made that and the checkpoint."""

    entry: BaseModelEntry
    parent: TrainingJob | None = None
    checkpoint: int | None = None

    def parameters(self, requested: dict[str, Any], technique: Technique) -> dict[str, Any]:
        """The hyperparameters of a job that starts here: `requested`, else those of the adapter or the model.

        Raises InvalidInput as `base_models.resolve_parameters`, and where the adapter is of another shape.
        """
        resolved = base_models.resolve_parameters(self.entry, requested, technique)
        if self.parent is not None:
            for name in FIXED:
                made_with = self.parent.hyper_parameters[name]
                if name in requested and resolved[name] != made_with:
                    raise InvalidInput(
                        f"parameters.{name}: it is {made_with} in {self.parent.name!r}, whose adapter is trained on, "
                        f"and cannot become {resolved[name]}; leave it out.",
                        code="invalid_parameters",
                    )
                resolved[name] = made_with
        return resolved

    def check_labels(self, train: Dataset) -> None:
        """Raises InvalidInput where the labels of `train`, for classification, are not those of the adapter's head."""
        if self.parent is None:
            return
        before, now = self.parent.train_dataset, train
        known, wanted = set(before.report["labels"]), set(now.report["labels"])
        if missing := sorted(known - wanted):
            raise InvalidInput(
                f"train_dataset_id: the dataset {now.name!r} lacks the label {missing[0]!r} of {before.name!r}, which "
                f"{self.parent.name!r} was trained on; the labels must be the same."
            )
        if unknown := sorted(wanted - known):
            raise InvalidInput(
                f"train_dataset_id: the dataset {now.name!r} has the label {unknown[0]!r}, which {before.name!r}, "
                f"that {self.parent.name!r} was trained on, does not have; the labels must be the same."
            )
        if (kind := before.report["label_kind"]) != now.report["label_kind"]:
            raise InvalidInput(
                f"train_dataset_id: the dataset {now.name!r} is {now.report['label_kind']}, but "
                f"{self.parent.name!r} was trained on {kind} labels; it must be the same."
            )


async def resolve(session: AsyncSession, project: Project, wanted: TrainingJobCreate, technique: Technique) -> Start:
    """What `wanted` is to start from; a parent is kept from being deleted until the transaction ends.

    Raises InvalidInput for a base model, job or checkpoint that is not there or does not fit, naming the field.
    """
    if wanted.base_model_option == "pre-trained":
        if wanted.checkpoint is not None:
            raise InvalidInput("checkpoint: it goes with base_model_option fine-tuned only; leave it out.")
        start = Start(base_models.get(hub_models.named(wanted.base_model, wanted.hf_model_link)))
        if wanted.task_type not in start.entry.task_types:
            raise InvalidInput(
                f"task_type: {start.entry.name} does {', '.join(start.entry.task_types)}, not {wanted.task_type}."
            )
        return start
    if wanted.hf_model_link is not None:
        raise InvalidInput("hf_model_link: it goes with base_model_option pre-trained only; leave it out.")
    parent = await _parent(session, project, wanted.base_model)
    says_task = technique == "GRPO" or "task_type" in wanted.model_fields_set
    if says_task and wanted.task_type != parent.task_type:
        raise InvalidInput(f"task_type: {parent.name!r} was trained for {parent.task_type}, not {wanted.task_type}.")
    number = await _checkpoint(session, parent, wanted.checkpoint, technique)
    return Start(base_models.get(parent.base_model), parent, number)


async def _parent(session: AsyncSession, project: Project, reference: str) -> TrainingJob:
    """The job of the project that `reference`, an id or a name, means."""
    for column in (TrainingJob.id, TrainingJob.name):
        query = (
            select(TrainingJob)
            .where(TrainingJob.project_id == project.id, column == reference)
            .options(joinedload(TrainingJob.train_dataset))
            # Lets its run write to it, but nobody delete it.
            .with_for_update(read=True, key_share=True, of=TrainingJob)
        )
        found = (await session.scalars(query.limit(20))).all()
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(sorted(job.id for job in found))
            raise InvalidInput(f"base_model: several training jobs are named {reference!r}; give the id of one: {ids}.")
    raise InvalidInput(
        f"base_model: there is no training job {reference!r} in project {project.id!r}; with base_model_option "
        "fine-tuned give the name or id of one."
    )


async def _checkpoint(
    session: AsyncSession, parent: TrainingJob, wanted: int | Literal["best"] | None, technique: Technique
) -> int:
    query = select(Checkpoint.number).where(Checkpoint.training_job_id == parent.id).order_by(Checkpoint.number)
    there = (await session.scalars(query)).all()
    shown = ", ".join(map(str, there)) or "none"
    if isinstance(wanted, int):
        if wanted not in there:
            raise InvalidInput(f"checkpoint: {parent.name!r} has no checkpoint {wanted}; complete are: {shown}.")
        return wanted
    if technique == "GRPO" and wanted is None:
        raise InvalidInput(f"checkpoint: give the one of {parent.name!r} to start from; complete are: {shown}.")
    if parent.status not in TERMINAL:
        raise InvalidInput(
            f"checkpoint: {parent.name!r} is {parent.status}, so its best one is not known; wait, or give one. "
            f"Complete are: {shown}."
        )
    if not there:
        raise InvalidInput(f"checkpoint: {parent.name!r} has none (status {parent.status}); train it again.")
    if wanted == "best" and parent.best_checkpoint is None:
        raise InvalidInput(f"checkpoint: none of {parent.name!r} was tested, so none is best; give one of {shown}.")
    return parent.best_checkpoint or there[-1]


async def adapter(session: AsyncSession, job: TrainingJob) -> str | None:
    """Key of the adapter that the job goes on from; None where it starts from the base model alone."""
    if job.base_model_option == "pre-trained":
        return None
    # It is there: a job that has not ended keeps its parent from being deleted.
    row = await session.get_one(Checkpoint, (job.parent_id, job.base_fine_tuned_model_checkpoint))
    return row.artifact


async def ancestors(session: AsyncSession, job: TrainingJob) -> list[TrainingJob]:
    """The jobs whose training is in the adapter that the job goes on from, the nearest first; without those that were
    deleted and what is before them.
    """
    found: list[TrainingJob] = []
    while (parent_id := (found[-1] if found else job).parent_id) is not None:
        found.append(await session.get_one(TrainingJob, parent_id, options=[joinedload(TrainingJob.train_dataset)]))
    return found
