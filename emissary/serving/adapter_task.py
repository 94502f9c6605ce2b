"""What the outputs of an adapter for classification, regression or embedding mean; lies beside its weights."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from emissary.data.validation import LabelKind
from emissary.errors import InvalidInput

FILE = "task.json"
PooledTask = Literal["classification", "regression", "embedding"]


class AdapterTask(BaseModel):
    """The task of one adapter: for classification its labels, an output each in this order; for regression the mean
    and standard deviation of the training targets, for the one output is in units of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_type: PooledTask
    label_kind: LabelKind | None = None
    labels: list[str] = []
    target_mean: float = 0.0
    target_std: float = Field(default=1.0, gt=0)

    @property
    def outputs(self) -> int:
        """Rows of the head's weight; 0 where there is no head."""
        return {"classification": len(self.labels), "regression": 1, "embedding": 0}[self.task_type]

    def save(self, folder: Path) -> None:
        """Write the file into `folder`."""
        (folder / FILE).write_text(self.model_dump_json(indent=2))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of `logits` (labels,): they sum to 1 if multiclass; else each label's own, as several may apply."""
        return logits.softmax(-1) if self.label_kind == "multiclass" else logits.sigmoid()

    def predicted_labels(self, logits: Tensor) -> str:
        """The labels that `logits` (labels,) speak for, as `label_text` writes them."""
        if self.label_kind == "multiclass":
            best = int(logits.argmax())
            return self.label_text({label: int(index == best) for index, label in enumerate(self.labels)})
        return self.label_text({label: int(logits[index] > 0) for index, label in enumerate(self.labels)})

    def label_text(self, marked: Mapping[str, int]) -> str:
        """The labels that are 1 as testing functions get them: `positive` or `negative` if binary, the label's name
        if multiclass, a JSON list of names in alphabetical order if multilabel.
        """
        names = sorted(label for label, value in marked.items() if value)
        if self.label_kind == "binary":
            return "positive" if names else "negative"
        return names[0] if self.label_kind == "multiclass" else json.dumps(names, ensure_ascii=False)


def read(folder: Path) -> AdapterTask:
    """The task of the adapter in `folder`. Raises InvalidInput where the file is missing or not as `save` writes it."""
    try:
        return AdapterTask.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidInput(
            f"{folder}/{FILE}, which says what the adapter's outputs mean, cannot be used: {error}."
        ) from error


def number_text(value: float) -> str:
    """A target or similarity as testing functions get it: up to ten significant digits, such as `3` or `0.25`."""
    return f"{value:.10g}"


def standardisation(targets: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of regression targets; 1 for the deviation of targets that are all the same."""
    values = np.array(targets, np.float64)
    if (values == values[0]).all():
        return float(values[0]), 1.0
    scale = np.abs(values).max()  # so that no square is beyond a double, nor all of them 0
    return float((values / scale).mean() * scale), float((values / scale).std() * scale) or 1.0
