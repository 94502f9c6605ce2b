"""Does GRPO learn? A model that SFT has left halfway goes on by GRPO, beside a control that goes on by noise.

Base model, rows and parameters are those of the example that `make results` trains by SFT, then by GRPO. The control
starts from the same SFT checkpoint and takes the same steps, but its reward is a hash of question and answer, so
whatever its answers gain is not learnt. Scores are of greedy answers to rows that nothing was trained on.

    python benchmarks/grpo_learns.py [SEED …]
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from blocks.sandbox import score_rows
from emissary import base_models, model_files
from emissary.data.splitting import downsampled
from emissary.example_rows import read
from emissary.results import EXAMPLES
from emissary.serving.generation import Generator
from emissary.settings import settings
from emissary.testing_function_files import TestingFunction, shipped
from tasks.grpo_training import train_grpo
from tasks.reward_steps import RewardPoint
from tasks.sft_rows import Conversation
from tasks.sft_training import train_sft
from tasks.text_answers import answer_rows, last_question
from tasks.training_steps import Caller

(EXAMPLE,) = (example for example in EXAMPLES if example.grpo)
REWARD = shipped()[EXAMPLE.functions[0]]
NOISE = TestingFunction(
    name="noise",
    content="import zlib\n\n\ndef noise(input_text, expected_output, predicted_output):\n"
    "    return zlib.crc32((input_text + predicted_output).encode()) % 1000 / 999\n",
)
BASE, SFT, GRPO, CONTROL = "base model", "SFT", "SFT, then GRPO", "SFT, then GRPO on noise"


@dataclass(frozen=True)
class Outcome:
    """What came of one training: the mean reward of greedy answers to unseen rows, 0 to 1; the seconds and steps it
    took; and the mean reward of what was sampled in the first and in the last quarter of its steps.
    """

    score: float
    seconds: float = 0.0
    steps: int = 0
    sampled: tuple[float, float] | None = None


def measure(seed: int, on_outcome: Callable[[str, Outcome], None] = lambda *_: None) -> dict[str, Outcome]:
    """Train with `seed`: SFT, GRPO from its checkpoint, and the control; name of each → outcome, as told on the way."""
    model_dir = model_files.fetch(EXAMPLE.base_model, settings())
    train, test = rows("train"), rows("test")
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="emissary-grpo-") as folder:

        def finished(name: str, points: Sequence[Any], seconds: float, adapter: Path | None) -> None:
            sampled = None
            if points and isinstance(points[0], RewardPoint):
                rewards = [point.rewards[REWARD.name] for point in points]
                quarter = max(1, len(rewards) // 4)
                sampled = fmean(rewards[:quarter]), fmean(rewards[-quarter:])
            steps = points[-1].step if points else 0
            outcomes[name] = Outcome(_score(model_dir, adapter, test), seconds, steps, sampled)
            on_outcome(name, outcomes[name])

        finished(BASE, [], 0.0, None)
        points, began = [], time.perf_counter()
        train_sft(
            model_dir=model_dir,
            model_name=EXAMPLE.base_model,
            train_rows=train,
            test_rows=[],
            parameters=_parameters("SFT", EXAMPLE.parameters, seed),
            work_dir=Path(folder, SFT),
            caller=_caller(points),
        )
        start = _last_checkpoint(Path(folder, SFT))
        finished(SFT, points, time.perf_counter() - began, start)
        for name, function in ((GRPO, REWARD), (CONTROL, NOISE)):
            points, began = [], time.perf_counter()
            train_grpo(
                model_dir=model_dir,
                model_name=EXAMPLE.base_model,
                train_rows=train[: downsampled(len(train), EXAMPLE.grpo["downsample_size"])],
                functions=[REWARD, NOISE],
                weights={function.name: 1.0},
                parameters=_parameters("GRPO", EXAMPLE.grpo, seed),
                work_dir=Path(folder, name),
                adapter_dir=start,
                on_warning=lambda *_: None,
                on_completions=lambda _: None,
                caller=_caller(points),
            )
            finished(name, points, time.perf_counter() - began, _last_checkpoint(Path(folder, name)))
    return outcomes


def rows(part: str) -> list[Conversation]:
    """The example's `train` or `test` rows, as they are after preparation."""
    inputs, expected = read(EXAMPLE.file(part), EXAMPLE.task_type)
    return [
        {"kind": "chat", "messages": [*turns, {"role": "assistant", "content": answer}]}
        for turns, answer in zip(inputs, expected, strict=True)
    ]


def table(outcomes: dict[str, Outcome]) -> str:
    """The outcomes, a line each."""
    lines = [f"{'':26}{'unseen rows':>12}{'sampled in training':>22}{'steps':>8}{'seconds':>10}"]
    for name, outcome in outcomes.items():
        sampled = "{:.2f} to {:.2f}".format(*outcome.sampled) if outcome.sampled else ""
        lines.append(f"{name:26}{outcome.score:>12.2f}{sampled:>22}{outcome.steps:>8}{outcome.seconds:>10.0f}")
    return "\n".join(lines)


def _parameters(technique: Any, changed: dict[str, Any], seed: int) -> dict[str, Any]:
    wanted = changed | {"seed": seed, "logging_steps": 1}
    return base_models.resolve_parameters(base_models.get(EXAMPLE.base_model), wanted, technique)


def _caller(points: list[Any]) -> Caller:
    return Caller(
        on_log=points.append,
        on_progress=lambda _: None,
        on_state=lambda _: None,
        on_checkpoint=lambda _: None,
        should_stop=lambda: False,
        should_save=lambda: False,
    )


def _last_checkpoint(work_dir: Path) -> Path:
    return max((work_dir / "checkpoints").iterdir(), key=lambda path: int(path.name))


def _score(model_dir: Path, adapter: Path | None, tested: Sequence[Conversation]) -> float:
    generator = Generator(model_dir)
    tokens = EXAMPLE.parameters["max_new_tokens"]
    (outputs,) = answer_rows(generator, tested, [adapter], tokens, lambda _: None, lambda _: None)
    answered = zip(tested, outputs, strict=True)
    triples = [(last_question(row), row["messages"][-1]["content"], output) for row, output in answered]
    scored = asyncio.run(score_rows(REWARD, triples, seconds=60, isolation=settings().sandbox, trusted=True))
    return fmean(row.score or 0.0 for row in scored)


def main() -> None:
    """Train with each seed and print the tables, then means and standard deviations over the seeds."""
    seeds = [int(seed) for seed in sys.argv[1:]] or [42]
    found = []
    for seed in seeds:
        found.append(measure(seed, lambda name, outcome: print(f"  {name}: {outcome.score:.2f}", flush=True)))
        print(f"seed {seed}\n{table(found[-1])}\n", flush=True)
    if len(seeds) > 1:
        for name in found[0]:
            scores = [outcomes[name].score for outcomes in found]
            print(f"{name:26}{fmean(scores):>12.3f} ± {stdev(scores):.3f} over {len(seeds)} seeds")


if __name__ == "__main__":
    main()
