"""Does GRPO learn? The reward over the steps, beside a control that is trained on noise in the same way.

The base model is asked for capitals; it is to name them (half of the reward) and to be brief (the other half). The
control's reward is a hash of the answer, so whatever its answers gain is not learnt. Prints both runs' rewards over
the steps, and the scores of greedy answers about countries that neither run trained on.

    python benchmarks/grpo_learns.py [STEPS]
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from blocks.sandbox import score_rows
from emissary import base_models, model_files
from emissary.serving.generation import Generator
from emissary.settings import settings
from emissary.testing_function_files import TestingFunction
from tasks.grpo_training import train_grpo
from tasks.reward_steps import RewardPoint
from tasks.sft_rows import Conversation
from tasks.text_answers import answer_rows
from tasks.training_steps import Caller

MODEL = "SmolLM2-135M-Instruct"
CAPITALS = (
    "France Paris,Italy Rome,Spain Madrid,Germany Berlin,Japan Tokyo,China Beijing,Egypt Cairo,Greece Athens,"
    "Russia Moscow,Norway Oslo,Sweden Stockholm,Poland Warsaw,Ireland Dublin,Portugal Lisbon,Austria Vienna,"
    "Peru Lima,Cuba Havana,Kenya Nairobi,India Delhi,Iran Tehran,Iraq Baghdad,Finland Helsinki,Hungary Budapest,"
    "Denmark Copenhagen"
)
ROWS: list[Conversation] = [
    {
        "kind": "prompt",
        "messages": [
            {"role": "user", "content": f"What is the capital of {country}?"},
            {"role": "assistant", "content": capital},
        ],
    }
    for country, capital in (pair.split() for pair in CAPITALS.split(","))
]
TRAINED, HELD_OUT = ROWS[:16], ROWS[16:]
COMPLETION_TOKENS = 16
PROMPTS_PER_STEP, GENERATIONS = 2, 4


def _function(name: str, *lines: str) -> TestingFunction:
    body = "\n".join(f"    {line}" for line in lines)
    return TestingFunction(name=name, content=f"def {name}(input_text, expected_output, predicted_output):\n{body}\n")


FUNCTIONS = [
    _function("names_it", "return float(expected_output.lower() in predicted_output.lower())"),
    _function("brief", "return 1 - min(len(predicted_output), 60) / 60"),
    _function("noise", "import zlib", "return zlib.crc32(predicted_output.encode()) % 1000 / 999"),
]
WEIGHTS = {"trained": {"names_it": 0.5, "brief": 0.5}, "control": {"noise": 1.0}}


def _task(scores: dict[str, float]) -> float:
    return sum(weight * scores[name] for name, weight in WEIGHTS["trained"].items())


def _train(weights: dict[str, float], steps: int, work_dir: Path, model_dir: Path) -> list[RewardPoint]:
    points: list[Any] = []
    parameters = base_models.grpo_template(base_models.get(MODEL)) | {
        "num_train_epochs": -(-steps // (len(TRAINED) // PROMPTS_PER_STEP)),
        "per_device_train_batch_size": PROMPTS_PER_STEP * GENERATIONS,
        "num_generations": GENERATIONS,
        "max_completion_length": COMPLETION_TOKENS,
        "learning_rate": 3e-4,
        "logging_steps": 1,
    }
    train_grpo(
        model_dir=model_dir,
        model_name=MODEL,
        train_rows=TRAINED,
        functions=FUNCTIONS,
        weights=weights,
        parameters=parameters,
        work_dir=work_dir,
        on_warning=print,
        on_completions=lambda _: None,
        caller=Caller(
            on_log=points.append,
            on_progress=lambda _: None,
            on_state=lambda _: None,
            on_checkpoint=lambda _: None,
            should_stop=lambda: False,
            should_save=lambda: False,
        ),
    )
    return points


async def _scores(outputs: list[str]) -> dict[str, float]:
    rows = [
        (row["messages"][0]["content"], row["messages"][1]["content"], output)
        for row, output in zip(HELD_OUT, outputs, strict=True)
    ]
    means = {}
    for function in FUNCTIONS:
        found = await score_rows(function, rows, seconds=60, isolation=settings().sandbox, trusted=True)
        means[function.name] = sum(row.score or 0.0 for row in found) / len(found)
    return means


def main() -> None:
    """Train both runs and print the tables."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    model_dir = model_files.fetch(MODEL, settings())
    with tempfile.TemporaryDirectory(prefix="emissary-grpo-") as folder:
        runs: dict[str, list[RewardPoint]] = {}
        for name, weights in WEIGHTS.items():
            start = time.perf_counter()
            runs[name] = _train(weights, steps, Path(folder) / name, model_dir)
            seconds = time.perf_counter() - start
            print(
                f"{name}: {len(runs[name])} steps in {seconds:.0f} s, {seconds / len(runs[name]):.1f} s a step",
                flush=True,
            )
        print("\nmean over steps (sampled)   " + "".join(f"{name:>28}" for name in runs))
        print(f"{'':28}" + "   task  names_it brief  kl   " * len(runs))
        for first in range(0, len(runs["trained"]), 4):
            line = f"steps {first + 1:>3} to {first + 4:>3}            "
            for points in runs.values():
                window = points[first : first + 4]
                means = [sum(point.rewards[name] for point in window) / len(window) for name in ("names_it", "brief")]
                task = sum(_task(point.rewards) for point in window) / len(window)
                line += f"   {task:.3f} {means[0]:.3f} {means[1]:.3f} {window[-1].kl:7.3f}"
            print(line)
        print(f"\n{len(HELD_OUT)} countries held out (greedy)   task   names_it   brief")
        generator = Generator(model_dir)
        for name in ("base", *runs):
            adapter = None
            if name != "base":
                adapter = max((Path(folder) / name / "checkpoints").iterdir(), key=lambda path: int(path.name))
            (outputs,) = answer_rows(generator, HELD_OUT, [adapter], COMPLETION_TOKENS, lambda _: None)
            scores = asyncio.run(_scores(outputs))
            print(
                f"{name:32} {_task(scores):.3f}   {scores['names_it']:.3f}     {scores['brief']:.3f}   {outputs[0]!r}"
            )


if __name__ == "__main__":
    main()
