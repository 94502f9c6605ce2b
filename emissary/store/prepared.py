"""Where what is made of a dataset's file lies: by the file's content, so that it is made once, whoever uploads it.

It belongs to all datasets with that content, and goes with the last of them.
"""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.data import formats, normalise
from emissary.data.rows import TaskType
from emissary.store.artifacts import sealed_notes
from emissary.store.tables import Dataset

FOLDER = "prepared"


def all_keys(sha256: str) -> str:
    """The prefix of keys of everything that is made of files with this content."""
    return f"{FOLDER}/{sha256}"


def rows_key(dataset: Dataset) -> str:
    """The artifact of the dataset's normalised rows."""
    reading = {
        "version": normalise.VERSION,
        # Datasets of earlier versions do not say what their content was recognised as.
        "format": dataset.report.get("format") or formats.named(dataset.file_name),
        "only": only(dataset),
    }
    return f"{all_keys(dataset.sha256)}/rows-{sealed_notes(reading)}"


def only(dataset: Dataset) -> list[TaskType] | None:
    """The task types that all rows of the dataset fit, where others of its file were left out; else None."""
    return dataset.report["compatible_task_types"] if dataset.report.get("skipped") else None


def profile_key(dataset: Dataset, made_of: dict[str, object]) -> str:
    """The artifact of the dataset's profile, which was `made_of` its rows and these other things."""
    return f"{all_keys(dataset.sha256)}/profile-{sealed_notes([rows_key(dataset), made_of])}"


async def not_being_removed(session: AsyncSession, dataset_id: str) -> Dataset:
    """The dataset; what is found of its content in the artifact store after this transaction stays.

    Raises sqlalchemy.exc.NoResultFound when the dataset is deleted.
    """
    dataset = await session.get_one(Dataset, dataset_id)
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(dataset.sha256, 0))))
    return dataset


async def is_left(session: AsyncSession, prefix: str) -> bool:
    """Whether no dataset has the content of `prefix` any more; until the transaction ends, none begins to use it."""
    sha256 = prefix.split("/")[1]
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(sha256, 0))))
    return await session.scalar(select(Dataset.id).where(Dataset.sha256 == sha256).limit(1)) is None
