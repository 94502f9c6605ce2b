"""GRPO with LoRA on rewards of testing functions: a checkpoint every so many steps, resumable after a kill.

The method is Group Relative Policy Optimization (arXiv:2402.03300): of each prompt several completions are sampled,
and those that score above the mean of their group become more likely. Every step samples anew, so the model that is
trained is the one that wrote the completions. It samples them itself, or a vLLM server does with its adapter.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from emissary import job_size
from emissary.errors import InvalidInput
from emissary.hardware import default_dtype, device
from emissary.judges import AnyFunction
from emissary.serving.architecture import context_of
from emissary.serving.causal_models import load_causal_model
from tasks.adapter_folders import last_state, load_adapter, save_adapter
from tasks.reward_steps import OnWarning, RewardSteps
from tasks.rewards import Rewards
from tasks.sampled_completions import Rows, SampledCompletions
from tasks.sft_rows import Conversation, prompt_ids
from tasks.training_steps import Caller, FinishedCheckpoint, Stopped, mean_loss, once_each
from tasks.vllm_generation import VllmGeneration, sampling_server


def train_grpo(
    *,
    model_dir: Path,
    model_name: str,
    train_rows: Sequence[Conversation],
    functions: Sequence[AnyFunction],
    weights: Mapping[str, float],
    parameters: dict[str, Any],
    work_dir: Path,
    adapter_dir: Path | None = None,
    on_warning: OnWarning,
    on_completions: Callable[[Rows], None],
    caller: Caller,
) -> int:
    """Train a LoRA adapter of the model in `model_dir` to answer the rows' prompts with a high reward: a new one, or
    that in `adapter_dir`, whose rank and alpha it keeps. With `beta` above 0 it is held near the model as it starts.

    The reward is the sum of the `functions`' scores, each with its weight in `weights`; those without one are
    measured only. The functions get the row's last assistant turn as the expected output. Every `save_steps` steps,
    and each epoch when that is sooner, an adapter lies in `work_dir`/checkpoints/<n>, with `model_name` as its base
    model. The caller's `on_log` gets RewardPoints; `on_warning` is told of functions that fail and of rewards that
    teach nothing, each time; `on_completions` gets a table of some that were sampled.

    Resumption and what the caller is told are as in `train_sft`: called again with the same
    `work_dir`, it goes on from the last checkpoint's trainer state, samples the same completions and ends in the
    same bytes. A prompt that leaves no room for a completion in `max_length` or the model's context loses its
    beginning. Returns the number of prompts so cut. Raises InvalidInput when there are fewer rows than a step takes
    prompts, a row does not suit the model's chat template, a function fails where `on_reward_failure` is "stop", or
    the loss is no longer finite; Unavailable where a judge is not to be had.
    """
    disable_progress_bar()
    target = device()
    dtype = default_dtype(target)
    on_gpu = target.type == "cuda"
    completions = parameters["per_device_train_batch_size"] * parameters["gradient_accumulation_steps"]
    epoch_steps = job_size.epoch_steps(parameters, len(train_rows))
    if not epoch_steps:
        raise InvalidInput(
            f"A step takes {completions // parameters['num_generations']} prompts, but there are {len(train_rows)} "
            "training rows; add rows, hold out fewer of them, or lower per_device_train_batch_size."
        )
    checkpoint_steps = job_size.checkpoint_steps(parameters, len(train_rows))
    steps = parameters["num_train_epochs"] * epoch_steps
    model, tokenizer = load_causal_model(model_dir, dtype)
    context = min(parameters["max_length"], context_of(model))
    dataset, cut = prompts(train_rows, tokenizer, max(1, context - parameters["max_completion_length"]))

    args = GRPOConfig(
        output_dir=str(work_dir / "trainer"),
        **{name: parameters[name] for name in _TRAINER_PARAMETERS},
        warmup_steps=math.ceil(parameters["warmup_ratio"] * steps),
        save_steps=checkpoint_steps,
        # Dr. GRPO leaves out the division by the spread of rewards too (arXiv:2503.20783).
        scale_rewards="none" if parameters["loss_type"] == "dr_grpo" else "group",
        reward_weights=[weights.get(function.name, 0.0) for function in functions],
        save_strategy="steps",
        save_total_limit=2,
        use_cpu=not on_gpu,
        bf16=dtype == torch.bfloat16,
        # Trades speed for memory, which is the scarcer only on a GPU.
        activation_checkpointing=on_gpu,
        dataloader_pin_memory=on_gpu,
        # A NaN must show, not be averaged away.
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
    )
    lora = LoraConfig(
        r=parameters["lora_r"],
        lora_alpha=parameters["lora_alpha"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with (
        # A job made by an earlier version has no word on failures.
        Rewards(
            functions, group=parameters["num_generations"], on_failure=parameters.get("on_reward_failure", "lowest")
        ) as rewards,
        warnings.catch_warnings(),
        suppress(Stopped),
        sampling_server(
            model_dir,
            folder=work_dir / "vllm",
            dtype=dtype,
            max_length=context,
            sequences=completions,
            parameters=parameters,
            caller=caller,
        ) as server,
    ):
        # TRL asks by the old name, at every generation.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        state = last_state(work_dir / "trainer")
        sampled = SampledCompletions(weights, on_completions, state)
        trainer = _Trainer(
            # Given a model with an adapter, TRL keeps a copy of that adapter as the reference.
            model=model if adapter_dir is None else load_adapter(model, adapter_dir, dropout=0.0),
            args=args,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=lora if adapter_dir is None else None,
            reward_funcs=rewards.callables(),
            epoch_steps=epoch_steps,
            sampled=sampled,
        )
        if server is not None:
            trainer.sample_by(VllmGeneration(server, trainer, max_length=context, folder=work_dir / "vllm"))
        trainer.remove_callback(PrinterCallback)

        def make(number: int, folder: Path) -> FinishedCheckpoint:
            train_loss = mean_loss(trainer.state.log_history, (number - 1) * checkpoint_steps)
            save_adapter(trainer.model, tokenizer, model_name, folder)
            return FinishedCheckpoint(number, folder, trainer.state.epoch, train_loss, None)

        finish = once_each(work_dir, caller, make)
        # First, for the other hands the saved state over.
        trainer.add_callback(sampled)
        trainer.add_callback(RewardSteps(rewards, on_warning, checkpoint_steps, caller, finish))
        trainer.train(resume_from_checkpoint=state)
    return cut


_TRAINER_PARAMETERS = (
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_generations",
    "max_completion_length",
    "temperature",
    "beta",
    "loss_type",
    "lr_scheduler_type",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "max_grad_norm",
    "seed",
    "logging_steps",
)


def prompts(rows: Sequence[Conversation], tokenizer: Any, room: int) -> tuple[Dataset, int]:
    """The rows' prompts as token ids, of which the last `room` are kept, and how many of them were so cut."""
    prompts = [prompt_ids(row, tokenizer, number) for number, row in enumerate(rows, 1)]
    columns = {
        "prompt": [prompt[-room:] for prompt in prompts],
        "input_text": [row["messages"][-2]["content"] if len(row["messages"]) > 1 else "" for row in rows],
        "expected_output": [row["messages"][-1]["content"] for row in rows],
    }
    return Dataset.from_dict(columns), sum(len(prompt) > room for prompt in prompts)


class _EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler in an order that depends on seed and epoch alone, so a resumed epoch has the same one."""

    def __init__(self, *, epoch: Callable[[], int], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self._epoch())
        return super().__iter__()  # type: ignore[no-any-return]


class _Trainer(GRPOTrainer):  # type: ignore[misc]
    def __init__(self, *, epoch_steps: int, sampled: SampledCompletions, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._epoch_steps, self._sampled = epoch_steps, sampled

    def sample_by(self, generation: VllmGeneration) -> None:
        """Sample by vLLM, as `use_vllm` does once TRL has set it up."""
        self.use_vllm, self.vllm_generation, self._last_loaded_step = True, generation, -1

    def _get_train_sampler(self, dataset: Dataset | None = None) -> _EpochSampler:
        return _EpochSampler(
            data_source=dataset or self.train_dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
            epoch=lambda: self.state.global_step // self._epoch_steps,
        )

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: list[str], completion_ids: Any
    ) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids)
        by_name = [dict(zip(self.reward_func_names, row, strict=True)) for row in rewards.tolist()]
        self._sampled.note(inputs, completions, by_name)
        weighted = rewards @ self.reward_weights.to(rewards.device)
        # What TRL logs as `reward_std` is over all completions of a step, whichever prompt they are of.
        self._log_metric("reward_group_std", weighted.view(-1, self.num_generations).std(dim=1).mean().item())
        return rewards

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The prompts are token ids already, made and cut exactly as for SFT and testing."""
        return prompts, None, {}
