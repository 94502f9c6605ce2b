"""Queries of dataset files that come in parts."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import NotFound
from emissary.store.dataset_files import artifact_key, stored_name
from emissary.store.parts import Arriving
from emissary.store.tables import Dataset, Upload

LIFETIME = timedelta(hours=24)
_MIB = 1024 * 1024
_PART_BYTES = 8 * _MIB  # S3 takes 5 MiB and more
_MOST_PARTS = 1000  # S3 takes 10,000


def part_bytes(size: int) -> int:
    """Bytes of each part of a file of `size` bytes: 8 MiB, more where there would be over a thousand parts."""
    mib = -(-size // (_MOST_PARTS * _MIB))
    return max(_PART_BYTES, mib * _MIB)


def arriving(upload: Upload) -> Arriving:
    """What the artifact store knows the upload as."""
    key, file = artifact_key(upload.dataset_id), stored_name(upload.file_name)
    return Arriving(key, file, upload.bytes, upload.part_bytes, upload.state)


async def get(session: AsyncSession, project_id: str, upload_id: str, *, lock: bool = False) -> Upload:
    """The project's upload; with `lock` nobody else has it until the transaction ends. Raises NotFound."""
    upload = await session.get(Upload, upload_id, with_for_update=lock or None)
    if upload is None or upload.project_id != project_id or _expired(upload):
        raise NotFound(f"There is no upload {upload_id!r} in project {project_id!r}.")
    return upload


async def unfinished(session: AsyncSession, upload_id: str) -> Upload:
    """The upload, of whichever project, while parts of it may come. Raises NotFound."""
    upload = await session.get(Upload, upload_id)
    ended = upload is None or _expired(upload) or upload.refused is not None
    if upload is None or ended or await dataset(session, upload) is not None:
        raise NotFound("The upload was given up or is complete; begin a new one.")
    return upload


async def dataset(session: AsyncSession, upload: Upload) -> Dataset | None:
    """The dataset that the upload became; None until it is complete."""
    return await session.get(Dataset, upload.dataset_id)


async def expired(session: AsyncSession) -> Sequence[Upload]:
    """Uploads older than a day, which nobody else has until the transaction ends."""
    query = select(Upload).where(Upload.created_at < func.now() - LIFETIME).with_for_update(skip_locked=True)
    return (await session.scalars(query)).all()


def _expired(upload: Upload) -> bool:
    return upload.created_at < datetime.now(UTC) - LIFETIME
