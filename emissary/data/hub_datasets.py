"""Datasets of the Hugging Face hub, and folders that the `datasets` library reads, as a file to upload."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emissary.data.row_files import write_rows
from emissary.errors import InvalidInput, NotFound, Unavailable
from emissary.hub_tokens import GIVE_ONE, hub_token

if TYPE_CHECKING:
    import datasets

_ANSWER_SECONDS = 10.0


def export(source: str, target: Path, config: str | None = None, split: str | None = None) -> None:
    """Write the rows of a dataset to the JSON Lines file `target`.

    `source` is a folder (of data files, or written by `save_to_disk`) or the name of a dataset of the hub. Raises as
    `export_from_hub`.
    """
    folder = Path(source)
    if not folder.is_dir():
        nothing = f"There is no file or folder {source}, and"
        export_from_hub(source, target, config, split, revision=newest_revision(source, nothing=nothing))
        return
    with _said(source):
        import datasets

        saved = (folder / "state.json").exists() or (folder / "dataset_dict.json").exists()
        loaded = datasets.load_from_disk(source) if saved else datasets.load_dataset(source, config, streaming=True)
        _write(source, _split(source, loaded, split), target, None)


def export_from_hub(
    name: str,
    target: Path,
    config: str | None = None,
    split: str | None = None,
    *,
    revision: str,
    most_bytes: int | None = None,
) -> None:
    """Write the rows of a dataset of the hub, which is streamed, to the JSON Lines file `target`; no code of it is run.

    Only fields that a task type reads are written, and of those what is not null. Raises InvalidInput where it has
    several configurations or splits and none is named, or its rows cannot be read, have none of these fields or take
    more than `most_bytes`.
    """
    if Path(name).exists():  # which `datasets` would read instead
        raise InvalidInput(f"The dataset {name!r} cannot be fetched: the platform's folder has something of that name.")
    with _said(name):
        import datasets

        # It refuses a dataset that names files outside of its repository.
        loaded = datasets.load_dataset(name, config, streaming=True, revision=revision, token=hub_token())
        _write(name, _split(name, loaded, split), target, most_bytes)


def _write(source: str, rows: Any, target: Path, most_bytes: int | None) -> None:
    columns = rows.column_names or list(next(iter(rows), {}))
    write_rows(f"The dataset {source!r}", columns, rows.select_columns, target, most_bytes)


def _split(source: str, loaded: Any, split: str | None) -> "datasets.IterableDataset":
    if not isinstance(loaded, dict):
        if split is not None:
            raise InvalidInput(f"The dataset {source!r} has no splits; leave out which one.")
        return loaded
    if split is None and len(loaded) == 1:
        (split,) = loaded
    if split not in loaded:
        lacks = "several splits" if split is None else f"no split {split!r}"
        raise InvalidInput(f"The dataset {source!r} has {lacks}; say which one: {', '.join(loaded)}.")
    return loaded[split]


def newest_revision(name: str, revision: str | None = None, *, nothing: str) -> str:
    """The commit that a branch or tag of a dataset of the hub is at, default its main branch.

    Raises InvalidInput where there is no such revision or `name` is none, NotFound where the hub does not have it for
    us, Unavailable where the hub is not reached; each sentence begins with `nothing`.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        found = HfApi(token=hub_token()).dataset_info(name, revision=revision, timeout=_ANSWER_SECONDS)
    except HFValidationError:
        raise InvalidInput(f"{nothing} it is not the name of a dataset of the Hugging Face hub.") from None
    except GatedRepoError as error:
        raise NotFound(
            f"{nothing} on the Hugging Face hub it is gated: accept its terms there, and {GIVE_ONE}."
        ) from error
    except RepositoryNotFoundError as error:
        raise NotFound(f"{nothing} no dataset of the Hugging Face hub; for a private one, {GIVE_ONE}.") from error
    except RevisionNotFoundError as error:
        raise InvalidInput(f"{nothing} on the Hugging Face hub it has no revision {revision!r}.") from error
    except (httpx2.HTTPError, OSError) as error:
        raise Unavailable(
            f"{nothing} the Hugging Face hub, of which it may be a dataset, cannot be reached; try again later, or "
            "download it where there is a network and upload it as files."
        ) from error
    return str(found.sha)


@contextmanager
def _said(source: str) -> Iterator[None]:
    """Has what the libraries raise come as a sentence."""
    import datasets
    import pyarrow as pa

    try:
        yield
    except (
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
        pa.ArrowException,
        datasets.exceptions.DatasetsError,
    ) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:300].rstrip(".") or type(cause).__name__
        raise InvalidInput(f"The dataset {source!r} cannot be read: {reason}.") from error
