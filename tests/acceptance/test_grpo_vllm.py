"""GRPO samples by vLLM what it would sample by transformers, with the adapter as it is, and leaves no process behind.

vLLM's build for CPUs stands in for the one for GPUs: the same server, started the same way.
"""

import itertools
import json
import math
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model

from emissary.serving.causal_models import load_causal_model
from emissary.serving.vllm_server import VllmFailed, vllm_server
from emissary.settings import PROJECT_ROOT, settings
from tasks.reward_steps import RewardPoint
from tasks.sft_rows import prompt_ids
from tasks.vllm_generation import completions
from tests.conftest import SHOWN
from tests.jobs import until
from tests.orphans import adopting_orphans
from tests.own_home import own_home
from tests.tasks.grpo_run import run
from tests.tasks.sft_run import ROWS, row

pytestmark = pytest.mark.acceptance

PYTHON = PROJECT_ROOT / ".venv-vllm" / "bin" / "python"
# Little memory, and one thread where the scheduler puts it, for others use the cores too.
VARIABLES = "VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1"
# Completions enough for a mean, and steps that change the model a lot.
PARAMETERS = {
    "learning_rate": 1e-2,
    "warmup_ratio": 0.0,
    "max_grad_norm": 10.0,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 16,
    "num_generations": 8,
    "max_completion_length": 12,
}
COMPLETIONS = 32  # of a step
# In float32, for in bfloat16 vLLM and transformers are 0.05 nats a token apart with one and the same adapter.
KILLED = """
import os, signal
from pathlib import Path
import torch
from tasks import grpo_training
from tests.tasks.grpo_run import run
torch.set_num_threads(1)
grpo_training.default_dtype = lambda _: torch.float32
run(Path({work_dir!r}), model_dir=Path({model_dir!r}), parameters={parameters!r},
    on_progress=lambda share: os.kill(os.getpid(), signal.SIGKILL) if share >= 2 / 3 else None)
"""
QUESTIONS = [
    *ROWS[:4],
    *(row(f"Name {what}.", "") for what in ("a colour", "a river in France", "three fruits", "the days of the week")),
    *(row(f"What is {what}?", "") for what in ("the capital of Italy", "2 + 2", "a violin", "the opposite of cold")),
]
TOKENS = 12


@pytest.fixture(scope="module")
def home(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own, where EMISSARY_VLLM is vLLM with little memory and without compilation, for quick starts."""
    if not PYTHON.exists():
        why = "NOT TESTED: vLLM is not installed; `make vllm` does that"
        warnings.warn(why, stacklevel=1)
        pytest.skip(why)
    python = tmp_path_factory.mktemp("vllm") / "python"
    python.write_text(f'#!/bin/sh\n{VARIABLES} exec "{PYTHON}" "$@" --enforce-eager\n')
    python.chmod(0o755)
    with own_home(EMISSARY_VLLM=str(python), EMISSARY_MODELS=str(base_model_dir.parent)) as folder, adopting_orphans():
        yield folder


@pytest.fixture(autouse=True)
def float32_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("tasks.grpo_training.default_dtype", lambda _: torch.float32)
    yield
    torch.set_num_threads(threads)


def vllm_processes() -> list[psutil.Process]:
    """Processes of vLLM below this one, orphans too."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                child.wait(0)
            elif "vllm_program" in " ".join(child.cmdline()) or child.name().startswith("VLLM"):
                found.append(child)
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            continue
    return found


def history(work_dir: Path) -> list[dict[str, Any]]:
    """What TRL logged of every step, by the last state of the training in `work_dir`."""
    states = sorted((work_dir / "trainer").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    logged = json.loads((states[-1] / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in logged if "loss" in entry]


def test_training_killed_leaves_no_vllm_and_goes_on_with_its_adapter(
    home: Path,
    base_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    work_dir = tmp_path / "vllm"
    code = KILLED.format(work_dir=str(work_dir), model_dir=str(base_model_dir), parameters=PARAMETERS)
    killed = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL, (home / "logs" / "vllm.log").read_text()[-3000:]
    until(vllm_processes, lambda found: not found, 20)
    run(work_dir, model_dir=base_model_dir, parameters=PARAMETERS)
    assert not vllm_processes()
    steps = history(work_dir)
    assert [entry["step"] for entry in steps] == [1, 2, 3]

    points: list[RewardPoint] = []
    monkeypatch.setattr(settings(), "vllm", None)
    run(tmp_path / "transformers", model_dir=base_model_dir, parameters=PARAMETERS, on_log=points.append)

    sampled = {
        "vLLM": [(entry["reward"], entry["reward_std"]) for entry in steps],
        "transformers": [(point.reward, point.reward_std) for point in points],
    }
    apart = [entry["sampling/sampling_logp_difference/mean"] for entry in steps]
    ratios = [entry["sampling/importance_sampling_ratio/mean"] for entry in steps]
    shown = [
        f"{name:13}{'  '.join(f'{mean:.3f} ± {spread:.3f}' for mean, spread in found)}"
        for name, found in sampled.items()
    ]
    shown.append(f"nats a token between vLLM and trainer: {'  '.join(f'{each:.4f}' for each in apart)}")
    shown.append(f"importance ratios: {'  '.join(f'{each:.3f}' for each in ratios)}; KL: {steps[-1]['kl']:.3f}")
    record_property(f"{SHOWN}rewards of 3 steps of GRPO", "\n".join(shown))

    # Of the first step, where both have the same model, the rewards differ by chance alone.
    (mean, spread), (other_mean, other_spread) = (rewards[0] for rewards in sampled.values())
    assert abs(mean - other_mean) < 3 * math.sqrt((spread**2 + other_spread**2) / COMPLETIONS)
    # The model has moved from where it was much farther than the two are apart, so vLLM had the adapter of each step.
    assert steps[-1]["kl"] > 0.05
    assert max(apart) < 0.005
    assert all(abs(ratio - 1) < 0.05 for ratio in ratios)


def test_vllm_answers_as_transformers_do_with_every_adapter_and_its_end_is_told(
    home: Path, base_model_dir: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    model, tokenizer = load_causal_model(base_model_dir, torch.float32)
    model = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.eval()
    prompts = [prompt_ids(question, tokenizer, number) for number, question in enumerate(QUESTIONS, 1)]
    agreed: dict[str, float] = {}
    told: list[list[list[int]]] = []
    python = settings().vllm
    assert python is not None
    with vllm_server(
        python,
        base_model_dir,
        folder=tmp_path,
        dtype="float32",
        max_length=128,
        sequences=len(prompts),
        rank=2,
        seed=1,
        meanwhile=lambda: None,
    ) as server:
        for name, spread in (("new", 0.0), ("moved", 0.05), ("moved more", 0.2)):
            torch.manual_seed(7)
            for weights, values in model.named_parameters():
                if "lora_B" in weights:
                    torch.nn.init.normal_(values, std=spread)
            folder = tmp_path / name
            model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
            server.load(name, folder)
            request = {"model": name, "temperature": 0, "max_tokens": TOKENS, "logprobs": 0, "return_token_ids": True}
            request["stop_token_ids"] = [tokenizer.eos_token_id]
            answered = completions(server.complete(request | {"prompt": prompts}), len(prompts))
            told.append([ids for ids, _ in answered])
            same = number = 0
            for prompt, ids in zip(prompts, told[-1], strict=True):
                same += sum(one == other for one, other in zip(ids, greedy(model, prompt, ids), strict=True))
                number += len(ids)
            agreed[name] = same / number
            server.unload(name)
        record_property(
            f"{SHOWN}tokens of vLLM that are transformers' likeliest, by adapter",
            ", ".join(f"{name}: {share:.3f}" for name, share in agreed.items()),
        )
        assert min(agreed.values()) > 0.95
        assert all(one != other for one, other in itertools.combinations(told, 2))  # each adapter in its own way
        with pytest.raises(VllmFailed, match=r"refuses /v1/load_lora_adapter with 4\d\d: .*logs/vllm.log may say more"):
            server.load("nothing", tmp_path / "missing")

        for process in vllm_processes():
            if process.name().startswith("VLLM"):
                process.kill()
        with pytest.raises(VllmFailed, match=r"logs/vllm.log"):
            server.complete({"model": "base", "prompt": prompts[0]})
    assert not vllm_processes()


@torch.no_grad()
def greedy(model: Any, prompt: list[int], ids: list[int]) -> list[int]:
    """The likeliest token at the place of each of `ids`, after the prompt and those before it."""
    logits = model(torch.tensor([prompt + ids])).logits[0]
    likeliest: list[int] = logits[len(prompt) - 1 : -1].argmax(-1).tolist()
    return likeliest
