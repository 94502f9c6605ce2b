"""Training for classification, regression and embedding with LoRA: a checkpoint per epoch, resumable after a kill."""

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from emissary import job_size
from emissary.errors import InvalidInput
from emissary.hardware import device
from emissary.serving.adapter_task import AdapterTask
from emissary.serving.pooled_models import (
    Pooling,
    context_of,
    dtype_for,
    embed,
    head_name,
    load_model,
    named_pooling,
    pool,
)
from tasks.adapter_folders import last_state, load_adapter, save_adapter
from tasks.epoch_sampling import EpochSampler
from tasks.pooled_losses import class_weights, row_losses
from tasks.pooled_rows import Example, Row, batch, examples
from tasks.training_steps import Caller, FinishedCheckpoint, Steps, Stopped, finite, mean_loss, once_each

logger = logging.getLogger(__name__)


def train_pooled(
    *,
    task: AdapterTask,
    model_dir: Path,
    model_name: str,
    train_rows: Sequence[Row],
    test_rows: Sequence[Row],
    parameters: dict[str, Any],
    work_dir: Path,
    adapter_dir: Path | None = None,
    caller: Caller,
) -> int:
    """Train a LoRA adapter, for classification and regression with a head, of the model in `model_dir` for `task`:
    a new one, or that in `adapter_dir`, whose rank and alpha it keeps, and which must have been trained for `task`.

    The loss is the cross-entropy of labels (of each label by itself unless multiclass), or the mean squared error of
    standardised targets or of a pair's cosine (Reimers and Gurevych, 2019, arXiv:1908.10084). With `dynamic_loss` it
    is the class-balanced focal loss, or Huber's for regression; see `pooled_losses`.

    Checkpoints, what the caller is told, resumption, the return value and the errors are those of `train_sft`; a
    text longer than `max_length` or the model's context loses its end.
    """
    disable_progress_bar()
    if not train_rows:
        raise InvalidInput("There are no training rows; add rows or hold out fewer of them for testing.")
    target = device()
    dtype = dtype_for(task.task_type, target)
    set_seed(parameters["seed"])  # the head starts at random
    model, tokenizer = load_model(model_dir, task.task_type, task.outputs, dtype)
    max_length = min(parameters["max_length"], context_of(model_dir, model, tokenizer))
    train, train_cut = examples(train_rows, task, tokenizer, max_length)
    test, test_cut = examples(test_rows, task, tokenizer, max_length)
    pooling = named_pooling(model_dir)
    if task.outputs:
        head = getattr(model, head_name(model)).float()  # before one is loaded into it
        if task.label_kind == "multilabel" and head.bias is not None:
            head.bias.data = first_bias([example.target for example in train]).to(head.bias)
    if adapter_dir is None:
        model = get_peft_model(model, _lora(parameters, task, pooling))
    else:
        model = load_adapter(model, adapter_dir, parameters["lora_dropout"])
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()  # small steps are lost in bfloat16

    epoch_steps = job_size.epoch_steps(parameters, len(train))
    steps = parameters["num_train_epochs"] * epoch_steps
    on_gpu = target.type == "cuda"
    args = TrainingArguments(
        output_dir=str(work_dir / "trainer"),
        **{name: parameters[name] for name in _TRAINER_PARAMETERS},
        warmup_steps=math.ceil(parameters["warmup_ratio"] * steps),
        save_strategy="steps",
        save_total_limit=2,
        use_cpu=not on_gpu,
        bf16=dtype == torch.bfloat16,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        label_names=["labels"],
        # A NaN must show, not be averaged away.
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = _Trainer(
        model=model,
        args=args,
        data_collator=lambda rows: batch(rows, tokenizer.pad_token_id),
        train_dataset=_Rows(train),
        eval_dataset=_Rows(test) if test_rows else None,
        processing_class=tokenizer,
        task=task,
        pooling=pooling,
        weights=class_weights(task, train) if parameters["dynamic_loss"] else None,
        dynamic=parameters["dynamic_loss"],
        epoch_steps=epoch_steps,
    )
    trainer.remove_callback(PrinterCallback)

    def make(number: int, folder: Path) -> FinishedCheckpoint:
        train_loss = mean_loss(trainer.state.log_history, (number - 1) * epoch_steps)
        test_loss = None
        if test_rows:
            # Drawing no random numbers leaves them as in a run that resumes from the state just saved.
            with torch.random.fork_rng():
                test_loss = finite(trainer.evaluate()["eval_loss"], trainer.state.global_step, args.learning_rate)
        save_adapter(trainer.model, tokenizer, model_name, folder)
        task.save(folder)
        return FinishedCheckpoint(number, folder, trainer.state.epoch, train_loss, test_loss)

    trainer.add_callback(Steps(epoch_steps, caller, once_each(work_dir, caller, make)))
    with suppress(Stopped):
        trainer.train(resume_from_checkpoint=last_state(work_dir / "trainer"))
    return train_cut + test_cut


def _lora(parameters: dict[str, Any], task: AdapterTask, pooling: Pooling | None) -> LoraConfig:
    """LoRA on all linear layers but the head, which is trained as a whole: `score`, or what PEFT knows as a head."""
    score = ["score"] if task.outputs and pooling is not None else None
    return LoraConfig(
        r=parameters["lora_r"],
        lora_alpha=parameters["lora_alpha"],
        lora_dropout=parameters["lora_dropout"],
        target_modules="all-linear",
        exclude_modules=score,
        modules_to_save=score,
        task_type="SEQ_CLS" if task.outputs and pooling is None else "FEATURE_EXTRACTION",
    )


_TRAINER_PARAMETERS = (
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "weight_decay",
    "seed",
    "logging_steps",
    "save_steps",
)


class _Rows(torch.utils.data.Dataset[Example]):
    def __init__(self, rows: list[Example]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.rows[index]


class _Trainer(Trainer):  # type: ignore[misc]
    def __init__(
        self,
        *,
        task: AdapterTask,
        pooling: Pooling | None,
        dynamic: bool,
        weights: Tensor | None,
        epoch_steps: int,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._task, self._pooling, self._epoch_steps = task, pooling, epoch_steps
        self._dynamic, self._weights = dynamic, weights
        # The loss is a mean over the rows of a forward pass, which the trainer is to average over passes.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: _Rows | None = None) -> EpochSampler:
        lengths = [row.length for row in (train_dataset or self.train_dataset).rows]
        group = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return EpochSampler(lengths, group, self.args.seed, lambda: self.state.global_step // self._epoch_steps)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002 - the trainer's signature
    ) -> Any:
        """The mean loss over the rows of a forward pass."""
        labels = inputs["labels"]
        if self._task.task_type == "embedding":
            vectors = embed(model, inputs["input_ids"], inputs["attention_mask"], self._pooling)
            # A pair's two texts follow each other.
            outputs = functional.cosine_similarity(vectors[::2], vectors[1::2])
        elif self._pooling is None:
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.float()
        else:
            outputs = model.score(pool(model, inputs["input_ids"], inputs["attention_mask"], self._pooling)).float()
        loss = row_losses(self._task, outputs, labels, self._dynamic, self._weights).mean()
        return (loss, {"logits": outputs}) if return_outputs else loss


def first_bias(targets: Sequence[Any]) -> Tensor:
    """The bias (labels,) with which a multilabel head says how frequent each label is in `targets` (rows, labels).

    From any other, the model first learns the frequencies of rare labels by giving all texts one vector, and then finds
    no way back (Lin et al., 2017, arXiv:1708.02002, section 4.1).
    """
    return torch.logit((torch.tensor(targets).sum(0) + 0.5) / (len(targets) + 1))
