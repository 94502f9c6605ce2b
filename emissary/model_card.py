"""The model card of a checkpoint, as the Hugging Face hub reads it, from what the catalogue has of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emissary import base_models, intervals
from emissary.model_usage import outputs, usage
from emissary.store.tables import Checkpoint, TrainingJob

_TEMPLATE = Path(__file__).with_name("model_card.md")
_PIPELINES = {
    "text-generation": "text-generation",
    "classification": "text-classification",
    "regression": "text-classification",
    "embedding": "feature-extraction",
}
_TECHNIQUES = {"SFT": "supervised fine-tuning (SFT)", "GRPO": "reinforcement on rewards (GRPO)"}


def model_card(job: TrainingJob, checkpoint: Checkpoint, last: int, repo: str, task: dict[str, Any] | None) -> str:
    """The text of README.md for `repo`: the card of a checkpoint of `job`, loaded with its datasets, whose last one
    is number `last`. `task` is what the adapter's task.json has.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # half a second, for those who push

    entry = base_models.get(job.base_model)
    tested = job.test_dataset or job.train_dataset
    values = _values(checkpoint)
    results = [
        EvalResult(
            task_type=_PIPELINES[job.task_type],
            dataset_type=tested.name,
            dataset_name=tested.name,
            metric_type=name,
            metric_value=value,
        )
        for name, value in values.items()
    ]
    data = ModelCardData(
        base_model=entry.hub_name,
        license=entry.license,
        library_name="peft",
        pipeline_tag=_PIPELINES[job.task_type],
        tags=["lora", job.training_technique.lower(), job.task_type],
        model_name=repo.partition("/")[2],
        eval_results=results or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=_cell(job.name),
        description=job.description,
        base=f"[{entry.name}](https://huggingface.co/{entry.hub_name})" if entry.hub_name else entry.name,
        task_type=job.task_type,
        technique=_TECHNIQUES[job.training_technique],
        checkpoint=checkpoint.number,
        checkpoints=last,
        job=job.id,
        usage=usage(job.task_type, repo, entry, task),
        outputs=outputs(task),
        datasets=_datasets(job),
        held_out=_held_out(job),
        tested=f"Means over the test rows, of {_cell(tested.name)}.",
        scores=[(_cell(name), *shown) for name, shown in _shown(checkpoint, values)],
        losses=[("train", _number(checkpoint.train_loss)), ("test", _number(checkpoint.test_loss))],
        parameters=[(name, _cell(str(value))) for name, value in sorted(job.hyper_parameters.items())],
        license=entry.license,
    )
    return str(card)


def _values(checkpoint: Checkpoint) -> dict[str, float]:
    """Means of testing functions and metrics, by name."""
    metrics = (checkpoint.report or {}).get("metrics", {})
    return {name: value for name, value in (metrics | (checkpoint.scores or {})).items() if value is not None}


def _shown(checkpoint: Checkpoint, values: dict[str, float]) -> Iterator[tuple[str, tuple[str, str, str]]]:
    summaries = (checkpoint.report or {}).get("test_summary", {})
    for name, value in values.items():
        summary = summaries.get(name)
        if summary is None:
            yield name, (_number(value), "", "")
        else:
            parts = (summary, summary["base"], summary["difference"])
            yield name, (intervals.written(parts[0]), intervals.written(parts[1]), intervals.written(parts[2]))


def _datasets(job: TrainingJob) -> list[tuple[str, str, int]]:
    rows = [("training", job.train_dataset), ("test", job.test_dataset)]
    return [(use, _cell(row.name), row.report["rows"]) for use, row in rows if row is not None]


def _held_out(job: TrainingJob) -> str:
    if job.train_test_split_ratio is None:
        return ""
    return f"Of the training rows {job.train_test_split_ratio:g} % were held out for testing."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    """Somebody's text in a table: no markup, no further column or line."""
    escaped = text.replace("\\", "\\\\").replace("\n", " ")
    for character in "|<>[]*_`#":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped
