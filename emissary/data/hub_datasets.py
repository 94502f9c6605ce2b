"""Datasets of the Hugging Face hub, and folders that the `datasets` library reads, as a file to upload."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emissary.data.rows import FIELDS
from emissary.errors import InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    import datasets

_ANSWER_SECONDS = 10.0


def export(source: str, target: Path, config: str | None = None, split: str | None = None) -> None:
    """Write the rows of a dataset to the JSON Lines file `target`.

    `source` is a folder (of data files, or written by `save_to_disk`) or the name of a dataset of the hub, which is
    streamed; no code of it is run. Only fields that a task type reads are written, and of those what is not null.
    Raises InvalidInput where it has several configurations or splits and none is named, or its rows cannot be read or
    have none of these fields, NotFound where the hub does not have it for us, Unavailable where the hub is not reached.
    """
    with _said(source):
        rows = _split(source, _loaded(source, config), split)
        columns = rows.column_names or list(next(iter(rows), {}))
        names = [name for name in columns if name in FIELDS]
        if not names:
            raise InvalidInput(
                f"The dataset {source!r} has the columns {', '.join(columns)}, and none that a dataset to train on has "
                f"({', '.join(sorted(FIELDS))}). Rename them and save it as a file."
            )
        with target.open("w", encoding="utf-8") as file:
            for row in rows.select_columns(names):
                file.write(f"{json.dumps(_without_nulls(row), ensure_ascii=False)}\n")


def _loaded(source: str, config: str | None) -> Any:
    import datasets

    folder = Path(source)
    if not folder.is_dir():
        _check_hub(source)
        return datasets.load_dataset(source, config, streaming=True)
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        return datasets.load_from_disk(source)
    return datasets.load_dataset(source, config, streaming=True)


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


def _check_hub(name: str) -> None:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    nothing = f"There is no file or folder {name}, and"
    try:
        HfApi().dataset_info(name, timeout=_ANSWER_SECONDS)
    except HFValidationError:
        raise InvalidInput(f"{nothing} it is not the name of a dataset of the Hugging Face hub.") from None
    except GatedRepoError as error:
        raise NotFound(
            f"{nothing} on the Hugging Face hub it is gated: accept its terms there, set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise NotFound(f"{nothing} no dataset of the Hugging Face hub; a private one needs HF_TOKEN.") from error
    except (httpx2.HTTPError, OSError) as error:
        raise Unavailable(
            f"{nothing} the Hugging Face hub, of which it may be a dataset, cannot be reached. Download it where there "
            "is a network, and name its folder."
        ) from error


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


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
