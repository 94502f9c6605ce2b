"""The files in examples/: they fit their task types, and a small model learns more from them than a baseline does."""

import json
from pathlib import Path
from typing import Any

import pytest

from emissary.data.validation import validate
from emissary.example_rows import read
from emissary.example_scores import baseline_scores, better, scored
from emissary.results import EXAMPLES, Example
from emissary.serving.adapter_task import AdapterTask, standardisation
from emissary.serving.generation import GenerationRequest, Generator
from emissary.serving.pooled import PooledModel
from emissary.walkthrough import EXAMPLES as FOLDER
from tasks.pooled_rows import Row
from tests.tasks import pooled_run, sft_run

NAMED = {example.name: example for example in EXAMPLES}


def pooled_rows(name: str, part: str) -> list[Row]:
    """The rows of an example as they are after preparation."""
    task_type = NAMED[name].task_type
    inputs, expected = read(NAMED[name].file(part), task_type)
    if task_type == "embedding":
        return [
            {"text_a": first, "text_b": second, "similarity": similar}
            for (first, second), similar in zip(inputs, expected, strict=True)
        ]
    column = "labels" if task_type == "classification" else "target"
    return [{"prompt": text, column: value} for text, value in zip(inputs, expected, strict=True)]


def task_of(name: str, rows: list[Row]) -> AdapterTask:
    """The task that training on `rows` of an example has."""
    if NAMED[name].task_type == "embedding":
        return AdapterTask(task_type="embedding")
    if NAMED[name].task_type == "regression":
        mean, deviation = standardisation([row["target"] for row in rows])
        return AdapterTask(task_type="regression", target_mean=mean, target_std=deviation)
    kind: Any = "multilabel" if NAMED[name].metric == "macro F1" else "multiclass"
    return AdapterTask(task_type="classification", label_kind=kind, labels=sorted(rows[0]["labels"]))


def score(name: str, model: PooledModel, adapter: str | None) -> float:
    """The example's metric of what the model says to its test rows."""
    inputs, expected = read(NAMED[name].file("test"), NAMED[name].task_type)
    texts = [text for pair in inputs for text in pair] if model.task_type == "embedding" else inputs
    outputs = model.run([model.row(text, adapter) for text in texts])
    predicted: list[Any]
    if model.task_type == "embedding":
        predicted = [float(first @ second) for first, second in zip(outputs[::2], outputs[1::2], strict=True)]
    elif model.task_type == "regression":
        predicted = [float(output) for output in outputs]
    else:
        task = model.task(adapter)
        predicted = [dict(zip(task.labels, task.probabilities(output).tolist(), strict=True)) for output in outputs]
    return scored(NAMED[name].metric, expected, predicted)


def trained(name: str, work_dir: Path, model_dir: Path, rows: int | None = None, **parameters: Any) -> PooledModel:
    """The model with its last checkpoint, trained on the first `rows` rows of an example, as the adapter `trained`."""
    train = pooled_rows(name, "train")[:rows]
    task = task_of(name, train)
    shape = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "max_length": 128, "save_steps": 1000}
    wanted = shape | {"learning_rate": 1e-3, "per_device_train_batch_size": 16} | parameters
    pooled_run.run(
        "multiclass", work_dir, task=task, train_rows=train, test_rows=[], model_dir=model_dir, parameters=wanted
    )
    model = PooledModel(model_dir, task.task_type)
    model.load_adapter("trained", work_dir / "checkpoints" / str(wanted["num_train_epochs"]))
    return model


def best_baseline(name: str) -> float:
    """The best score of the baselines without a language model."""
    example = NAMED[name]
    train, test = (read(example.file(part), example.task_type) for part in ("train", "test"))
    scores = baseline_scores(example.metric, train, test).values()
    return min(scores) if example.task_type == "regression" else max(scores)


def texts_of(example: Example, part: str) -> set[str]:
    """Every text that a model reads of an example's rows; of a chat, its last question."""
    inputs, _ = read(example.file(part), example.task_type)
    if example.task_type == "text-generation":
        return {turns[-1]["content"] for turns in inputs}
    return {text for row in inputs for text in ([row] if isinstance(row, str) else row)}


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMED)
def test_examples_fit_their_task_types_and_share_no_text(example: Example) -> None:
    for part in ("train", "test"):
        report = validate(FOLDER / example.file(part), example.file(part))
        assert example.task_type in report.compatible_task_types
        assert report.duplicates == 0
    train, test = (texts_of(example, part) for part in ("train", "test"))
    assert not train & test


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("town-hall", {"num_train_epochs": 2}),
        ("repair-hours", {"num_train_epochs": 3}),
        pytest.param("review-aspects", {"num_train_epochs": 4}, marks=pytest.mark.acceptance),
    ],
)
def test_small_encoder_beats_the_baselines(name: str, parameters: dict[str, Any], tmp_path: Path) -> None:
    model = trained(name, tmp_path, pooled_run.encoder_dir(), **parameters)
    assert better(NAMED[name].metric, score(name, model, "trained"), best_baseline(name))


@pytest.mark.acceptance
def test_small_encoder_beats_itself_untrained_on_pairs(tmp_path: Path) -> None:
    model = trained("repair-pairs", tmp_path, pooled_run.encoder_dir(), rows=300, num_train_epochs=1)
    assert score("repair-pairs", model, "trained") > score("repair-pairs", model, None)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("town-hall", {"num_train_epochs": 2}),
        ("review-aspects", {"num_train_epochs": 10}),
        ("repair-pairs", {"num_train_epochs": 1, "rows": 300}),
    ],
)
def test_chat_model_beats_the_baselines(
    name: str, parameters: dict[str, Any], base_model_dir: Path, tmp_path: Path
) -> None:
    model = trained(name, tmp_path, base_model_dir, learning_rate=5e-4, **parameters)
    other = score(name, model, None) if name == "repair-pairs" else best_baseline(name)
    assert better(NAMED[name].metric, score(name, model, "trained"), other)


@pytest.mark.long
def test_chat_model_beats_itself_untrained_on_tickets(base_model_dir: Path, tmp_path: Path) -> None:
    (asked, expected), (test_asked, test_expected) = (
        read(NAMED["tickets"].file(part), "text-generation") for part in ("train", "test")
    )
    rows = [
        {"kind": "chat", "messages": [*turns, {"role": "assistant", "content": answer}]}
        for turns, answer in zip(asked, expected, strict=True)
    ]
    shape = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "max_length": 256, "save_steps": 1000}
    wanted = shape | {"num_train_epochs": 1, "per_device_train_batch_size": 4}
    sft_run.run(tmp_path, model_dir=base_model_dir, train_rows=rows[:120], test_rows=[], parameters=wanted)
    generator = Generator(base_model_dir)
    generator.load_adapter("trained", tmp_path / "checkpoints" / "1")
    prompts = [generator.chat_prompt(turns) for turns in test_asked[:40]]

    def right(adapter: str | None) -> float:
        """Share of the fields of the triage that are right."""
        answers = generator.generate([GenerationRequest(ids, adapter=adapter, max_new_tokens=32) for ids in prompts])
        fields = [(json.loads(truth), answer.text) for truth, answer in zip(test_expected, answers, strict=False)]
        found = [f'"{key}":"{value}"' in text for truth, text in fields for key, value in truth.items()]
        return sum(found) / len(found)

    assert right("trained") > right(None) + 0.2
