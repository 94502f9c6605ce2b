"""What a dataset's rows are like: found once for their content, kept with its plots, shown in the dataset's detail."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import jinja2
import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE
from transformers import AutoTokenizer

from emissary import base_models, model_files
from emissary.data import profiling
from emissary.data.profile_warnings import warnings_of
from emissary.data.profiling import CountTokens, DatasetProfile, Tokens
from emissary.errors import InvalidInput
from emissary.serving import loading
from emissary.settings import settings
from emissary.store import datasets, prepared
from emissary.store.artifacts import artifact_store
from emissary.store.tables import Dataset
from tasks.catalogue import in_catalogue
from tasks.patience import patiently
from tasks.profile_plots import plots
from tasks.publishing import made_once

FILE = "profile.json"
_NICENESS = 10


def give_way() -> None:
    """Have this thread, and those it starts from now on, compute when little else wants to: nobody waits for a profile.

    Threads that are there already, such as the one that gives signs of life, keep their priority.
    """
    os.nice(_NICENESS)


@task(task_run_name="profile-{dataset.id}", cache_policy=NO_CACHE)
async def make_profile(
    dataset: Dataset, rows_key: str, test_dataset_id: str | None, test_key: str | None, base_model: str | None
) -> tuple[DatasetProfile, str]:
    """Profile the dataset's rows, and show that in its detail; what was found of the same rows before is taken. Returns
    the profile and the key of the artifact with its plots.

    `test_key` is the artifact of the test dataset's rows. Raises InvalidInput for a `base_model` that is not here.
    """
    counting = tokenizer_of(base_model) if base_model else _first_tokenizer(_task_type(dataset.report))
    made_of: dict[str, object] = {
        "version": profiling.VERSION,
        "tokenizer": counting and counting[0].name,
        "test": test_key and [test_dataset_id, test_key],
    }
    key = prepared.profile_key(dataset, made_of)

    def write(folder: Path) -> None:
        rows = patiently(artifact_store().folder, rows_key) / "rows.parquet"
        profile = _profiled(rows, dataset.report, counting)
        if test_key is not None and test_dataset_id is not None:
            test_rows = patiently(artifact_store().folder, test_key) / "rows.parquet"
            profile.leakage = profiling.leakage(rows, test_rows, test_dataset_id)
        profile.imbalance = profiling.imbalance(dataset.report["class_counts"])
        profile.warnings += warnings_of(profile, dataset.report)
        pictures = plots(profile, dataset.report["class_counts"])
        profile.plots = list(pictures)
        for name, picture in pictures.items():
            (folder / f"{name}.png").write_bytes(picture)
        (folder / FILE).write_text(profile.model_dump_json(), encoding="utf-8")

    folder = await anyio.to_thread.run_sync(made_once, key, write)
    profile = DatasetProfile.model_validate_json((folder / FILE).read_bytes())
    await in_catalogue(datasets.record_profile, dataset.id, profile.model_dump(mode="json"), key)
    return profile, key


def tokenizer_of(base_model: str | None) -> tuple[base_models.BaseModelEntry, Path] | None:
    """The base model and its folder, None for None. Raises InvalidInput where it is unknown or not on this machine."""
    if not base_model:
        return None
    folder = model_files.local_folder(base_model, settings())
    if folder is None:
        raise InvalidInput(
            f"base_model: {base_model} is not on this machine, and is not fetched for a profile; train with it, or "
            "leave this empty."
        )
    return base_models.get(base_model), folder


def _first_tokenizer(task_type: str) -> tuple[base_models.BaseModelEntry, Path] | None:
    """The first base model of the catalogue that fits the task and is on this machine."""
    for entry in base_models.catalogue().values():
        folder = model_files.local_folder(entry.name, settings()) if task_type in entry.task_types else None
        if folder is not None:
            return entry, folder
    return None


def _task_type(report: dict[str, Any]) -> str:
    """The task that rows are most likely meant for: of several the most special, for every number is a text too."""
    fitting: list[str] = report["compatible_task_types"]
    return next(each for each in ("classification", "embedding", "regression", "text-generation") if each in fitting)


def _profiled(
    rows: Path, report: dict[str, Any], counting: tuple[base_models.BaseModelEntry, Path] | None
) -> DatasetProfile:
    task_type = _task_type(report)
    if counting is None:
        profile, _ = profiling.profile(rows)
        profile.warnings.append(
            f"Token lengths are not known yet: no base model for {task_type} is on this machine. They are counted once "
            "a job or an engine has fetched one."
        )
        return profile
    entry, folder = counting
    try:
        with loading.refused(folder, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        profile, lengths = profiling.profile(rows, _counter(tokenizer, task_type))
    except (InvalidInput, jinja2.TemplateError) as error:
        profile, _ = profiling.profile(rows)
        profile.warnings.append(f"Token lengths are not known, for {entry.name} does not take all rows: {error}")
        return profile
    profile.tokens = Tokens(
        base_model=entry.name,
        context=entry.context,
        rows=len(lengths),
        over_context=int(np.count_nonzero(lengths > entry.context)),
        lengths=profiling.distribution(lengths),
    )
    return profile


def _counter(tokenizer: Any, task_type: str) -> CountTokens:
    """Counts a row's tokens: of a conversation with its answer, a prompt, or the longer text of a pair."""
    tokens = partial(_token_counts, tokenizer)
    if task_type == "embedding":
        return lambda rows: list(
            map(max, tokens([row["text_a"] for row in rows]), tokens([row["text_b"] for row in rows]))
        )
    if task_type != "text-generation":
        return lambda rows: tokens([row["prompt"] for row in rows])
    if tokenizer.chat_template:
        return lambda rows: tokens(
            [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows], add_special_tokens=False
        )
    return lambda rows: tokens([_plain(row, tokenizer.eos_token) for row in rows])


def _token_counts(tokenizer: Any, texts: list[str], *, add_special_tokens: bool = True) -> list[int]:
    ids = tokenizer(texts, add_special_tokens=add_special_tokens, verbose=False)["input_ids"] if texts else []
    return [len(each) for each in ids]


def _plain(row: dict[str, Any], end: str) -> str:
    """A row as a model without chat template gets it. Raises InvalidInput for a conversation."""
    if row["kind"] != "prompt":
        raise InvalidInput("some are conversations, and it has no chat template.")
    return f"{row['prompt']}{row['completion']}{end}"
