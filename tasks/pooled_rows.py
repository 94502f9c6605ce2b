"""The rows of classification, regression and embedding as token ids and targets, and as testing functions get them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emissary.errors import InvalidInput
from emissary.serving.adapter_task import AdapterTask, number_text, standardisation
from emissary.serving.pooled_models import padded

Row = dict[str, Any]
"""A normalised row with its task's columns: `prompt` and `labels` or `target`; `text_a`, `text_b`, `similarity`."""


def texts(row: Row) -> list[str]:
    """The texts that the model reads: one, or the two of a pair."""
    return [row["prompt"]] if "prompt" in row else [row["text_a"], row["text_b"]]


def input_text(row: Row) -> str:
    """What a testing function gets as input: the prompt, or both texts of a pair, one a line."""
    return "\n".join(texts(row))


def expected_text(row: Row, task: AdapterTask) -> str:
    """What a testing function gets as expected output; see `AdapterTask.label_text` and `number_text`."""
    if task.task_type == "classification":
        return task.label_text(row["labels"])
    return number_text(row["target"] if task.task_type == "regression" else row["similarity"])


def predicted_text(outputs: Sequence[Tensor], task: AdapterTask) -> str:
    """The same of the model's outputs for the row's texts: logits, a regression's value, or a pair's embeddings."""
    if task.task_type == "classification":
        return task.predicted_labels(outputs[0])
    if task.task_type == "regression":
        return number_text(float(outputs[0]))
    return number_text(cosine(outputs))


def cosine(embeddings: Sequence[Tensor]) -> float:
    """The cosine of a pair's two embeddings."""
    first, second = embeddings
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))


def task_of(task_type: Any, report: dict[str, Any], train_rows: Sequence[Row]) -> AdapterTask:
    """The task of an adapter trained on `train_rows` of the dataset with this report."""
    if task_type == "classification":
        return AdapterTask(task_type=task_type, label_kind=report["label_kind"], labels=report["labels"])
    if task_type == "regression":
        mean, deviation = standardisation([row["target"] for row in train_rows])
        return AdapterTask(task_type=task_type, target_mean=mean, target_std=deviation)
    return AdapterTask(task_type=task_type)


@dataclass(frozen=True)
class Example:
    """A row for training: token ids of its one or two texts, and its target (an index, numbers per label, a number)."""

    ids: list[list[int]]
    target: int | float | list[float]

    @property
    def length(self) -> int:
        """Tokens of the longest text."""
        return max(map(len, self.ids))


def examples(rows: Sequence[Row], task: AdapterTask, tokenizer: Any, max_length: int) -> tuple[list[Example], int]:
    """`rows` for training, and how many of them lost the end of a text to `max_length`. Raises InvalidInput for a row
    that the task has no target for.
    """
    made, cut = [], 0
    for number, row in enumerate(rows, 1):
        example = Example(
            [tokenizer(text, truncation=False)["input_ids"] for text in texts(row)], _target(row, task, number)
        )
        if example.length > max_length:
            cut += 1
            ids = [tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in texts(row)]
            example = Example(ids, example.target)
        made.append(example)
    return made, cut


def batch(rows: Sequence[Example], pad_token_id: int) -> dict[str, Tensor]:
    """`rows` as tensors: input_ids and attention_mask (texts, longest), a pair's two texts one after the other, and
    labels (rows,) or (rows, labels).
    """
    ids, mask = padded([text for row in rows for text in row.ids], pad_token_id)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row.target for row in rows])}


def _target(row: Row, task: AdapterTask, number: int) -> int | float | list[float]:
    if task.task_type == "embedding":
        return float(row["similarity"])
    if task.task_type == "regression":
        return float((row["target"] - task.target_mean) / task.target_std)
    marked = [label for label, value in row["labels"].items() if value]
    unknown = sorted(set(row["labels"]) - set(task.labels))
    if unknown:
        raise InvalidInput(f"Row {number} has the label {unknown[0][:60]!r}, which the training dataset does not have.")
    if task.label_kind == "multiclass":
        if len(marked) != 1:
            raise InvalidInput(f"Row {number} has {len(marked)} labels that are 1; in this dataset it must be one.")
        return task.labels.index(marked[0])
    return [float(label in marked) for label in task.labels]
