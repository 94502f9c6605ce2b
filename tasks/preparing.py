"""From an uploaded dataset to rows that can be trained and tested on."""

from pathlib import Path
from typing import Any

import anyio
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from emissary.data.inputs import fingerprint, input_text, leaked
from emissary.data.normalise import normalise, read_normalised
from emissary.data.rebalancing import one_class_left, rebalance, row_counts
from emissary.data.splitting import downsample, split
from emissary.errors import NotFound
from emissary.store import job_events, prepared, starts
from emissary.store.artifacts import CorruptArtifact, artifact_store
from emissary.store.tables import TrainingJob
from tasks.catalogue import in_catalogue
from tasks.patience import patiently
from tasks.publishing import made_once
from tasks.running_out import FEWER_ROWS, told_what_ran_out

Warned = tuple[dict[str, Any], str]
"""What is to be known of a job's rows: details, and a sentence."""

_COLUMNS = {
    "text-generation": ("kind", "messages"),
    "classification": ("prompt", "labels"),
    "regression": ("prompt", "target"),
    "embedding": ("text_a", "text_b", "similarity"),
}
"""What of a normalised row each task type reads."""


@task(task_run_name="prepare-{dataset_id}", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2)
async def prepare(dataset_id: str) -> str:
    """Normalise a dataset to Parquet once for its content; returns the artifact's key. Does nothing when it is there,
    and whole.
    """
    dataset = await in_catalogue(prepared.not_being_removed, dataset_id)
    key = prepared.rows_key(dataset)

    def write(folder: Path) -> None:
        uploaded = patiently(artifact_store().folder, dataset.artifact)
        (source,) = (path for path in uploaded.iterdir() if path.stem == "original")
        normalise(source, dataset.file_name, folder / "rows.parquet", prepared.only(dataset))

    with told_what_ran_out(f"the rows of {dataset_id}", FEWER_ROWS):
        await anyio.to_thread.run_sync(made_once, key, write)
    return key


@task(task_run_name="split", cache_policy=NO_CACHE)
async def training_and_test_rows(job: TrainingJob, train_key: str, test_key: str | None) -> tuple[list[Any], list[Any]]:
    """The rows to train on and those to test on, see `divided`, with the columns of the job's task type.

    Raises InvalidInput where none can be held out, and where those to train on are of one class only.
    """
    with told_what_ran_out(f"the rows of {job.id}", FEWER_ROWS):
        rows = await anyio.to_thread.run_sync(_rows, train_key, job.task_type)
        given = None if test_key is None else await anyio.to_thread.run_sync(_rows, test_key, job.task_type)
        training, test = divided(job, rows, given)
    require_two_classes(job, training)
    return training, test


def divided(
    job: TrainingJob, rows: list[dict[str, Any]], given: list[dict[str, Any]] | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of `rows` those to train on, downsampled and then rebalanced as the job says; and those to test on: the `given`
    ones, or held out, for classification the same share of every class.

    Of rows with the same input, but for white space, either all are held out or none, whatever their answers.
    """
    seed, percent = job.hyper_parameters["seed"], job.hyper_parameters["downsample_size"]
    training, test = list(range(len(rows))), given or []
    if given is None and job.train_test_split_ratio is not None:
        groups = [fingerprint(input_text(row)) for row in rows]
        training, held_out = split(len(rows), job.train_test_split_ratio, seed, _strata(job, rows), groups)
        test = [rows[index] for index in held_out]
    candidates = [rows[index] for index in training]
    chosen = [rows[index] for index in downsample(training, percent, seed, _strata(job, candidates))]
    if job.rebalance_data:
        report = job.train_dataset.report
        classes = [_class(row, report["label_kind"]) for row in chosen]
        counts = row_counts(job.rebalance_data, report["class_counts"], len(chosen))
        chosen = [chosen[index] for index in rebalance(classes, counts, seed)]
    return chosen, test


@task(task_run_name="look-at-rows", cache_policy=NO_CACHE)
async def warn_of_rows(job: TrainingJob, training: list[Any], test: list[Any]) -> None:
    """Say in the job's log and events what `all_warnings_of` finds."""
    for details, message in await all_warnings_of(job, training, test):
        get_run_logger().warning(message)
        await in_catalogue(job_events.record, job.id, "warning", details, message=message)


async def all_warnings_of(job: TrainingJob, training: list[Any], test: list[Any]) -> list[Warned]:
    """What `warnings_of` finds; test rows that an earlier job of the chain was trained on; and testing functions that
    have nothing to do.
    """
    found = await anyio.to_thread.run_sync(warnings_of, training, test)
    for ancestor in await in_catalogue(starts.ancestors, job) if test else []:
        try:
            key = await prepare.fn(ancestor.train_dataset_id)
            same = await anyio.to_thread.run_sync(_trained_on_before, ancestor, key, test)
        except (NotFound, CorruptArtifact) as error:  # this job needs none of it
            message = f"Whether test rows were trained on by {ancestor.name!r} before is not known. {error}"
            found.append(({"about": "unknown_leaks", "trained_on_by": ancestor.id}, message))
            continue
        if same:
            message = (
                f"{len(same)} of {len(test)} test rows have an input that {ancestor.name!r} was trained on, whose "
                f"adapter this job goes on from (the first is test row {same[0] + 1}), so test results are better than "
                "on unseen inputs; test on other rows."
            )
            found.append(({"leaked_rows": len(same), "trained_on_by": ancestor.id}, message))
    if job.test_functions and not test:
        message = (
            "No checkpoint is tested and none will be the best, for the job has testing functions but no rows to test "
            "on; give test_dataset_id or train_test_split_ratio."
        )
        found.append(({"about": "nothing_to_test_on"}, message))
    return found


def _trained_on_before(ancestor: TrainingJob, key: str, test: list[dict[str, Any]]) -> list[int]:
    """Indices of those of the rows `test` whose input `ancestor`, whose dataset's rows are `key`, was trained on."""
    given: list[Any] | None = None if ancestor.test_dataset_id is None else []
    trained, _ = divided(ancestor, _rows(key, ancestor.task_type), given)
    return leaked(trained, test)


def warnings_of(training: list[dict[str, Any]], test: list[dict[str, Any]]) -> list[Warned]:
    """What makes the results on the test rows better or worse than they would be."""
    found: list[Warned] = []
    if same := leaked(training, test):
        message = (
            f"{len(same)} of {len(test)} test rows have an input that is trained on too (the first is test row "
            f"{same[0] + 1}), so test results are better than on unseen inputs; remove them from either side."
        )
        found.append(({"leaked_rows": len(same)}, message))
    if unseen := sorted(_all_marked(test) - _all_marked(training)):
        names = ", ".join(repr(label[:60]) for label in unseen[:6]) + (", …" if len(unseen) > 6 else "")
        message = (
            f"Test rows have labels that no training row has ({names}), so these cannot be learnt; add rows of them, "
            "or hold out and leave out fewer."
        )
        found.append(({"about": "untrained_labels", "labels": unseen}, message))
    return found


def require_two_classes(job: TrainingJob, training: list[dict[str, Any]]) -> None:
    """Raise InvalidInput where a classifier would see one class only."""
    if job.task_type != "classification" or len(set(map(_marked, training))) > 1:
        return
    raise one_class_left(job.train_test_split_ratio, job.rebalance_data, job.hyper_parameters["downsample_size"])


def _rows(key: str, task_type: str) -> list[dict[str, Any]]:
    path = patiently(artifact_store().folder, key) / "rows.parquet"
    return [{column: row[column] for column in _COLUMNS[task_type]} for row in read_normalised(path)]


def _strata(job: TrainingJob, rows: list[dict[str, Any]]) -> list[tuple[str, ...]] | None:
    return [_marked(row) for row in rows] if job.task_type == "classification" else None


def _marked(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(label for label, value in row["labels"].items() if value))


def _all_marked(rows: list[dict[str, Any]]) -> set[str]:
    return {label for row in rows if row.get("labels") for label in _marked(row)}


def _class(row: dict[str, Any], label_kind: str) -> str:
    """The class of a binary or multiclass row, as in the dataset's `class_counts`."""
    marked = _marked(row)
    if label_kind == "binary":
        return "positive" if marked else "negative"
    return marked[0]
