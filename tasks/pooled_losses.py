"""The losses of classification, regression and embedding."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from emissary.serving.adapter_task import AdapterTask
from tasks.pooled_rows import Example

FOCUS = 2.0
"""The exponent γ of the focal loss."""
BETA = 0.999
"""The β of class-balanced weights: a class counts by its rows up to about 1 / (1 - β) of them, no more beyond."""


def class_weights(task: AdapterTask, rows: Sequence[Example]) -> Tensor | None:
    """Weights that make up for classes of unlike size in `rows`; None but for classification.

    A class of n rows weighs (1 - β) / (1 - β^n), the inverse of its effective number of rows; the weights of one
    decision sum to its number of classes (Cui et al., 2019, arXiv:1901.05555). Multiclass: (labels,). Else (labels, 2),
    of a label that is 0 and that is 1 in a row, each label being a decision of its own. A class without rows weighs 0.
    """
    if task.task_type != "classification":
        return None
    targets = torch.tensor([row.target for row in rows])
    if task.label_kind == "multiclass":
        return _effective(torch.bincount(targets, minlength=task.outputs).double())
    ones = targets.double().sum(0)
    return _effective(torch.stack([len(rows) - ones, ones], -1))


def _effective(counts: Tensor) -> Tensor:
    weights = torch.where(counts > 0, (1 - BETA) / (1 - BETA**counts), 0.0)
    return (weights * counts.shape[-1] / weights.sum(-1, keepdim=True)).float()


def row_losses(task: AdapterTask, outputs: Tensor, targets: Tensor, dynamic: bool, weights: Tensor | None) -> Tensor:
    """The loss of each row: of `outputs` (rows, outputs), for embedding cosines (rows,), against `targets`.

    With `dynamic` it is the focal loss (Lin et al., 2017, arXiv:1708.02002) times the `weights` of `class_weights`, or
    Huber's for regression; else cross-entropy or the squared error.
    """
    if task.task_type != "classification":
        outputs = outputs.flatten()
        kind = functional.huber_loss if dynamic else functional.mse_loss
        return kind(outputs, targets.to(outputs), reduction="none")
    if task.label_kind == "multiclass":
        losses = functional.cross_entropy(outputs, targets, reduction="none")
    else:
        losses = functional.binary_cross_entropy_with_logits(outputs, targets.to(outputs), reduction="none")
    if dynamic:
        assert weights is not None
        weights = weights.to(outputs.device)
        of_target = weights[targets] if losses.dim() == 1 else torch.where(targets > 0, weights[:, 1], weights[:, 0])
        losses = of_target * losses * (1 - torch.exp(-losses)) ** FOCUS
    return losses if losses.dim() == 1 else losses.mean(-1)
