"""A dataset of the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from emissary.data import hub_datasets
from emissary.errors import InvalidInput, NotFound
from emissary.schemas.sources import HubSource
from emissary.settings import settings
from emissary.sources.fetched import Fetched
from emissary.store.tables import Json


def check(source: HubSource) -> str:
    """The commit that its revision is at. Raises InvalidInput where the hub does not give us the dataset, Unavailable
    where it is not reached.
    """
    try:
        return hub_datasets.newest_revision(
            source.dataset, source.revision, nothing=f"gather.dataset: {source.dataset} cannot be had:"
        )
    except NotFound as error:
        raise InvalidInput(str(error)) from error


def fetch(source: HubSource, known: Sequence[Json], folder: Path) -> Fetched | None:
    """Its rows, in a file in `folder`; None where one of `known` is of the same commit.

    Raises as `check` and `hub_datasets.export_from_hub`.
    """
    which = source.model_dump(include={"dataset", "config", "split"})
    origin = which | {"revision": check(source)}
    if origin in known:
        return None
    path = folder / "fetched"
    try:
        hub_datasets.export_from_hub(
            source.dataset,
            path,
            source.config,
            source.split,
            revision=origin["revision"],
            most_bytes=settings().max_large_upload_mb * 2**20,
        )
    except InvalidInput as error:
        raise InvalidInput(f"gather.dataset: {error}") from error
    return Fetched(path, f"{source.dataset.rpartition('/')[2]}.jsonl", origin)
