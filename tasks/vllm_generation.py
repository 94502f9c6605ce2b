"""Completions that GRPO trains on, sampled by a vLLM server with the adapter as it is at that step.

TRL's own `use_vllm` either loads vLLM into the trainer's process, whose environment cannot have it, or sends merged
weights over NCCL to a server that has TRL too, which needs a second GPU. Here the adapter alone goes to the server, as
files, and what TRL does with completions of vLLM it does with these.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emissary.serving.vllm_server import VllmFailed, VllmServer, vllm_server
from emissary.settings import settings
from tasks.training_steps import Caller, Stopped

_REQUESTS = 128
"""Prompts that are asked at once, each with all of its completions."""


def sampling_server(
    model_dir: Path,
    *,
    folder: Path,
    dtype: torch.dtype,
    max_length: int,
    sequences: int,
    parameters: dict[str, Any],
    caller: Caller,
) -> AbstractContextManager[VllmServer | None]:
    """The vLLM server that samples for a training with these parameters, in `folder`, which is made anew; None where
    EMISSARY_VLLM is not set. Entering it raises VllmFailed, and Stopped where the caller does not want to wait.
    """
    python = settings().vllm
    if python is None:
        return nullcontext()

    def stop_if_asked() -> None:
        if caller.should_stop() or caller.should_save():  # there is nothing to save yet
            raise Stopped

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return vllm_server(
        python,
        model_dir,
        folder=folder,
        dtype=str(dtype).removeprefix("torch."),
        max_length=max_length,
        sequences=sequences,
        rank=parameters["lora_r"],
        seed=parameters["seed"],
        meanwhile=stop_if_asked,
    )


class VllmGeneration:
    """What a GRPOTrainer of TRL with `use_vllm` calls `vllm_generation`: sampling as the trainer's arguments say.

    Prompts with their completions have up to `max_length` tokens. Adapters on their way lie in `folder`.
    """

    def __init__(self, server: VllmServer, trainer: Any, *, max_length: int, folder: Path) -> None:
        self._server, self._trainer, self._max_length, self._folder = server, trainer, max_length, folder
        self._adapter: str | None = None

    def sync_weights(self) -> None:
        """Have the server answer with the adapter as it is now. Raises VllmFailed."""
        name = f"step-{self._trainer.state.global_step}"
        # Only what is trained: a training that starts from an adapter keeps a copy of that as its reference.
        self._trainer.model.save_pretrained(
            self._folder / name, selected_adapters=["default"], save_embedding_layers=False
        )
        if self._adapter is not None:  # first, for the server has room for one
            self._server.unload(self._adapter)
            shutil.rmtree(self._folder / self._adapter)
        self._server.load(name, self._folder / name)
        self._adapter = name

    def generate(
        self, *, prompts: Sequence[list[int]], num_generations: int, **_: Any
    ) -> tuple[Sequence[list[int]], list[list[int]], list[list[list[float | None]]], None]:
        """A completion for each of `prompts`, of which `num_generations` in a row are the same.

        Gives the prompts, the completions as token ids with the end token, and of every token a list with its
        log-probability when it was sampled. Each prompt has a seed of its own, from the training's seed and step, so a
        step that is done again samples nearly the same. Raises VllmFailed.
        """
        groups = prompts[::num_generations]
        step = self._trainer.state.global_step
        requests = [
            self._request(prompt, num_generations, seed_of(self._trainer.args.seed, step, number))
            for number, prompt in enumerate(groups)
        ]
        with ThreadPoolExecutor(min(len(requests), _REQUESTS)) as pool:
            answers = list(pool.map(self._server.complete, requests))
        sampled = [completion for answer in answers for completion in completions(answer, num_generations)]
        return prompts, [ids for ids, _ in sampled], [[[each] for each in logprobs] for _, logprobs in sampled], None

    def _request(self, prompt: list[int], completions: int, seed: int) -> dict[str, Any]:
        trainer = self._trainer
        return {
            "model": self._adapter,
            "prompt": prompt,
            "n": completions,
            "seed": seed,
            "max_tokens": min(trainer.max_completion_length, self._max_length - len(prompt)),
            "temperature": trainer.temperature,
            "top_p": trainer.top_p,
            "top_k": trainer.top_k,
            "min_p": trainer.min_p or 0.0,
            "repetition_penalty": trainer.repetition_penalty,
            "stop_token_ids": list(trainer.eos_token_ids),
            "logprobs": 0,  # of the sampled token alone
            "return_token_ids": True,
        }


def seed_of(seed: int, step: int, prompt: int) -> int:
    """The seed of a step's `prompt`th prompt; vLLM's completions of one prompt take those that follow it."""
    (state,) = np.random.SeedSequence((seed, step, prompt)).generate_state(1, np.uint64)
    return int(state >> np.uint64(2))  # vLLM takes signed ones of 64 bits


def completions(answer: dict[str, Any], number: int) -> list[tuple[list[int], list[float | None]]]:
    """Token ids and log-probabilities of the `number` completions in a server's answer.

    Raises VllmFailed where they are not all there.
    """
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    sampled = [(choice["token_ids"], choice["logprobs"]["token_logprobs"]) for choice in choices]
    if len(sampled) != number or any(not ids or len(ids) != len(logprobs) for ids, logprobs in sampled):
        raise VllmFailed(
            f"vLLM was asked for {number} completions with log-probabilities, and answered otherwise; use another "
            "version of it, or unset EMISSARY_VLLM to generate without vLLM, and resume the job."
        )
    return sampled
