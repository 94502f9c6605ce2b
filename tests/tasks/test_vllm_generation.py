"""What of sampling by vLLM needs no vLLM; tests/acceptance/test_grpo_vllm.py samples with it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emissary.serving.vllm_server import VllmFailed
from tasks.vllm_generation import completions, seed_of
from tests.own_home import own_home
from tests.tasks.grpo_run import run


@pytest.fixture
def python_without_vllm(base_model_dir: Path) -> Iterator[Path]:
    with own_home(EMISSARY_VLLM=sys.executable, EMISSARY_MODELS=str(base_model_dir.parent)) as home:
        yield home


def choice(index: int, ids: list[int], logprobs: list[float | None]) -> dict[str, Any]:
    return {"index": index, "token_ids": ids, "logprobs": {"token_logprobs": logprobs}}


def test_every_prompt_of_every_step_has_a_seed_of_its_own() -> None:
    seeds = {seed_of(seed, step, prompt) for seed in (1, 2) for step in range(30) for prompt in range(30)}
    assert len(seeds) == 2 * 30 * 30
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert seed_of(4294967295, 7, 3) == seed_of(4294967295, 7, 3)


def test_completions_come_in_the_order_they_were_asked_for() -> None:
    answer = {"choices": [choice(1, [5, 2], [-0.5, None]), choice(0, [7], [-0.25])]}
    assert completions(answer, 2) == [([7], [-0.25]), ([5, 2], [-0.5, None])]


@pytest.mark.parametrize("choices", [[], [choice(0, [5], [])], [choice(0, [], [])]])
def test_completions_that_are_not_all_there_are_refused(choices: list[dict[str, Any]]) -> None:
    with pytest.raises(VllmFailed, match="asked for 1 completions with log-probabilities"):
        completions({"choices": choices}, 1)


def test_training_fails_where_vllm_is_to_sample_and_cannot(
    python_without_vllm: Path, base_model_dir: Path, tmp_path: Path
) -> None:
    points: list[object] = []
    with pytest.raises(VllmFailed, match=r"while it started; .*/logs/vllm\.log says why"):
        run(tmp_path, model_dir=base_model_dir, on_log=points.append)
    assert not points


def test_training_that_is_to_stop_does_not_wait_for_vllm(
    python_without_vllm: Path, base_model_dir: Path, tmp_path: Path
) -> None:
    checkpoints: list[object] = []
    run(tmp_path, model_dir=base_model_dir, should_save=lambda: True, on_checkpoint=checkpoints.append)
    assert not checkpoints
