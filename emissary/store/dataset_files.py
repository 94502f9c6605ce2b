"""From a dataset file to a validated artifact and the row that describes it."""

import shutil
import tempfile
from pathlib import Path, PurePath
from typing import IO

from emissary.data import formats
from emissary.data.rows import OnInvalid, TaskType
from emissary.data.validation import validate
from emissary.errors import InvalidInput
from emissary.ids import new_id
from emissary.settings import settings
from emissary.store.artifacts import artifact_store, file_sha256
from emissary.store.parts import Arriving
from emissary.store.tables import Dataset


def artifact_key(dataset_id: str) -> str:
    """The artifact of a dataset's file."""
    return f"datasets/{dataset_id}"


def stored_name(file_name: str) -> str:
    """What a dataset's file is called in its artifact."""
    return f"original{PurePath(file_name).suffix.lower()}"


def store_file(
    source: IO[bytes],
    file_name: str,
    on_invalid: OnInvalid = "refuse",
    dataset_id: str | None = None,
    task_type: TaskType | None = None,
) -> Dataset:
    """Validate a file, for the task type where one is given, and publish it as the artifact of a new dataset, with this
    id where one is given.

    Raises InvalidInput; nothing is left.
    """
    dataset_id = dataset_id or new_id("ds")
    with tempfile.TemporaryDirectory(prefix="emissary-upload-") as scratch:
        path = Path(scratch) / stored_name(file_name)
        source.seek(0)
        with path.open("wb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)
        dataset = _described(dataset_id, path, file_name, on_invalid, task_type)
        artifact_store().publish(dataset.artifact, Path(scratch), {"file": path.name}, move=True)
    return dataset


def store_arrived(
    arriving: Arriving, dataset_id: str, file_name: str, on_invalid: OnInvalid, task_type: TaskType | None
) -> Dataset:
    """Validate a file that came in parts and publish it; one that is published already is only described.

    Raises InvalidInput when it cannot be used, with the code `parts_missing` while parts of it have not arrived.
    """
    store = artifact_store()
    if store.manifest(arriving.key) is not None:
        return _described(dataset_id, store.file(arriving.key, arriving.file), file_name, on_invalid, task_type)
    missing = sorted(set(arriving.numbers) - store.parts.arrived(arriving))
    if missing:
        first = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        raise InvalidInput(
            f"{len(missing)} of {len(arriving.numbers)} parts have not arrived ({first}); PUT them first, to the links "
            "that the upload gives.",
            code="parts_missing",
        )
    with store.parts.assembled(arriving) as path:
        dataset = _described(dataset_id, path, file_name, on_invalid, task_type)
        store.parts.publish(arriving, path, {"file": path.name})
    return dataset


def _described(
    dataset_id: str, path: Path, file_name: str, on_invalid: OnInvalid, task_type: TaskType | None
) -> Dataset:
    report = validate(path, file_name, on_invalid, settings().max_large_upload_mb * 1024 * 1024, task_type)
    return Dataset(
        id=dataset_id,
        file_name=file_name,
        artifact=artifact_key(dataset_id),
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        report=report.model_dump(mode="json") | {"format": formats.found(path, file_name)},
    )
