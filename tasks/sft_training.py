"""Supervised fine-tuning with LoRA: one checkpoint per epoch, resumable after a kill at any moment."""

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer

from emissary import job_size
from emissary.errors import InvalidInput
from emissary.hardware import default_dtype, device
from emissary.serving.architecture import context_of
from emissary.serving.causal_models import load_causal_model
from tasks.adapter_folders import last_state, load_adapter, save_adapter
from tasks.epoch_sampling import EpochSampler
from tasks.sft_rows import Conversation, tokenised
from tasks.training_steps import Caller, FinishedCheckpoint, Steps, Stopped, finite, mean_loss, once_each

logger = logging.getLogger(__name__)


def train_sft(
    *,
    model_dir: Path,
    model_name: str,
    train_rows: Sequence[Conversation],
    test_rows: Sequence[Conversation],
    parameters: dict[str, Any],
    work_dir: Path,
    adapter_dir: Path | None = None,
    caller: Caller,
) -> int:
    """Train a LoRA adapter of the model in `model_dir` on the last assistant turn of every row: a new one, or that in
    `adapter_dir`, whose rank and alpha it keeps.

    Each epoch's adapter lies in `work_dir`/checkpoints/<n>, with `model_name` as its base model. Called again with the
    same `work_dir`, it goes on from the last trainer state in `work_dir`/trainer (saved every `save_steps` and each
    epoch) and ends in the same bytes; the caller's `on_log` then gets the points since that state again, and
    `on_checkpoint` is called for a checkpoint until it once returned.

    A row longer than `max_length` or the model's context loses the beginning of its prompt. Returns the number
    of rows so cut. Raises InvalidInput when a row does not suit the model's chat template, or the loss is no
    longer finite.
    """
    disable_progress_bar()
    target = device()
    dtype = default_dtype(target)
    model, tokenizer = load_causal_model(model_dir, dtype)
    max_length = min(parameters["max_length"], context_of(model))
    if not train_rows:
        raise InvalidInput("There are no training rows; add rows or hold out fewer of them for testing.")
    train, train_cut = tokenised(train_rows, tokenizer, max_length)
    test, test_cut = tokenised(test_rows, tokenizer, max_length)
    cut = train_cut + test_cut
    if cut:
        total = len(train_rows) + len(test_rows)
        logger.warning("%d of %d rows exceed %d tokens and lose their beginning.", cut, total, max_length)

    epoch_steps = job_size.epoch_steps(parameters, len(train))
    steps = parameters["num_train_epochs"] * epoch_steps
    on_gpu = target.type == "cuda"
    args = SFTConfig(
        output_dir=str(work_dir / "trainer"),
        **{name: parameters[name] for name in _TRAINER_PARAMETERS},
        warmup_steps=math.ceil(parameters["warmup_ratio"] * steps),
        loss_type="dft" if parameters["dynamic_loss"] else "nll",
        train_sampling_strategy="group_by_length",
        save_strategy="steps",
        save_total_limit=2,
        use_cpu=not on_gpu,
        bf16=dtype == torch.bfloat16,
        # Trades speed for memory, which is the scarcer only on a GPU.
        activation_checkpointing=on_gpu,
        dataloader_pin_memory=on_gpu,
        dataset_kwargs={"skip_prepare_dataset": True},
        # A NaN must show, not be averaged away.
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
    )
    lora = LoraConfig(
        r=parameters["lora_r"],
        lora_alpha=parameters["lora_alpha"],
        lora_dropout=parameters["lora_dropout"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = _Trainer(
        model=model if adapter_dir is None else load_adapter(model, adapter_dir, parameters["lora_dropout"]),
        args=args,
        train_dataset=train,
        eval_dataset=test if test_rows else None,
        processing_class=tokenizer,
        peft_config=lora if adapter_dir is None else None,
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
        return FinishedCheckpoint(number, folder, trainer.state.epoch, train_loss, test_loss)

    trainer.add_callback(Steps(epoch_steps, caller, once_each(work_dir, caller, make)))
    with suppress(Stopped):
        trainer.train(resume_from_checkpoint=last_state(work_dir / "trainer"))
    return cut


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


class _Trainer(SFTTrainer):  # type: ignore[misc]
    def __init__(self, *, epoch_steps: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._epoch_steps = epoch_steps

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochSampler:
        lengths = [len(ids) for ids in (train_dataset or self.train_dataset)["input_ids"]]
        group = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return EpochSampler(lengths, group, self.args.seed, lambda: self.state.global_step // self._epoch_steps)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As TRL's, on a CPU without the logits of the prompt, which count for nothing.

        TRL leaves them out by a GPU kernel only; for a 135M model they are a third of a step.
        """
        if self.args.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        positions = (labels[:, 1:] != -100).any(0).nonzero().squeeze(1)
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
            logits_to_keep=positions,
        )
        targets = labels[:, positions + 1]
        loss = cross_entropy(outputs.logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        if self.args.loss_type == "dft":
            loss = loss * torch.exp(-loss).detach()  # Dynamic Fine-Tuning, arXiv:2508.05629
        tokens = (targets != -100).sum() if num_items_in_batch is None else num_items_in_batch
        mean = loss.sum() / torch.as_tensor(tokens).clamp(min=1)
        return (mean, outputs) if return_outputs else mean
