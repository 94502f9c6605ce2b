"""How fast all checkpoints of a job answer the test rows in one pass, beside one checkpoint after another.

    python benchmarks/test_checkpoints.py [--checkpoints 4] [--rows 80] [--rounds 1] [--float32]

The checkpoints are those of a short training on the example `tickets`, so answers have the lengths that they have in a
job. What is compared is the testing step's one batch with `generate` of transformers, through PEFT: a row a call, and
eight rows a call, padded on the left, in the rows' order. All are greedy, have the base model loaded before, and load
the adapters themselves; they take turns. Equal are answers that are those of one row a call, to the letter. In
bfloat16, in which everything runs where the hardware does that well, the order of sums decides between tokens that are
nearly as likely; in float32 it hardly ever does.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rich.console import Console
from rich.table import Table

from emissary import base_models, demo, model_files
from emissary.example_rows import read
from emissary.serving.causal_models import load_causal_model
from emissary.serving.generation import Generator
from emissary.settings import settings
from tasks.sft_rows import Conversation
from tasks.sft_training import train_sft
from tasks.text_answers import answer_rows
from tasks.training_steps import Caller

TRAIN_ROWS = 64
MAX_NEW_TOKENS = int(demo.PARAMETERS["max_new_tokens"])
Answers = list[list[str]]


def rows_of(part: str, count: int) -> list[Conversation]:
    """The first `count` rows of `train` or `test`."""
    asked, expected = read(f"tickets-{part}.jsonl", "text-generation")
    answers = ({"role": "assistant", "content": text} for text in expected)
    return [
        {"kind": "chat", "messages": [*turns, answer]} for turns, answer in zip(asked[:count], answers, strict=False)
    ]


def trained(model_dir: Path, checkpoints: int, work_dir: Path) -> list[Path]:
    """The adapters of a job of so many epochs on 64 rows."""
    folders: list[Path] = []
    parameters = base_models.resolve_parameters(
        base_models.get(demo.BASE_MODEL), demo.PARAMETERS | {"num_train_epochs": checkpoints}
    )
    train_sft(
        model_dir=model_dir,
        model_name=demo.BASE_MODEL,
        train_rows=rows_of("train", TRAIN_ROWS),
        test_rows=[],
        parameters=parameters,
        work_dir=work_dir,
        caller=Caller(
            on_log=lambda _: None,
            on_progress=lambda _: None,
            on_state=lambda _: None,
            on_checkpoint=lambda checkpoint: folders.append(checkpoint.folder),
            should_stop=lambda: False,
            should_save=lambda: False,
        ),
    )
    return folders


def one_pass(generator: Generator, rows: Sequence[Conversation], adapters: Sequence[Path]) -> Answers:
    """As the testing step does it."""
    return list(answer_rows(generator, rows, adapters, MAX_NEW_TOKENS, lambda _: None, lambda _: None))


def one_after_another(
    model_dir: Path, generator: Generator, rows: Sequence[Conversation], adapters: Sequence[Path], at_once: int
) -> Callable[[], Answers]:
    """`generate` of each adapter on its own, `at_once` rows a call; the base model is loaded here, once."""
    base, tokenizer = load_causal_model(model_dir, generator.model.dtype)
    base = base.to(generator.model.device).eval()
    prompts = [generator.chat_prompt(row["messages"][:-1]) for row in rows]
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    @torch.inference_mode()
    def answers(model: Any) -> list[str]:
        found = []
        for first in range(0, len(prompts), at_once):
            inputs = tokenizer.pad({"input_ids": prompts[first : first + at_once]}, return_tensors="pt")
            inputs = inputs.to(base.device)
            outputs = model.generate(
                **inputs,
                do_sample=False,
                use_cache=True,
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
            )
            found += tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return found

    def run() -> Answers:
        found = []
        for adapter in adapters:
            model: Any = PeftModel.from_pretrained(base, adapter).eval()
            found.append(answers(model))
            model.unload()
        return found

    return run


def measure(checkpoints: int, count: int, rounds: int, dtype: torch.dtype | None) -> Table:
    """The medians over the rounds, as a table."""
    model_dir = model_files.fetch(demo.BASE_MODEL, settings())
    rows = rows_of("test", count)
    with tempfile.TemporaryDirectory(prefix="emissary-benchmark-") as folder:
        adapters = trained(model_dir, checkpoints, Path(folder))
        generator = Generator(model_dir, dtype)
        arms: dict[str, Callable[[], Answers]] = {
            "generate, one row a call": one_after_another(model_dir, generator, rows, adapters, 1),
            "generate, eight rows a call": one_after_another(model_dir, generator, rows, adapters, 8),
            "one pass": partial(one_pass, generator, rows, adapters),
        }
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        cpu: dict[str, list[float]] = {name: [] for name in arms}
        answers: dict[str, Answers] = {}
        for _ in range(rounds):
            for name, run in arms.items():
                begun, cpu_begun = time.perf_counter(), time.process_time()
                answers[name] = run()
                seconds[name].append(time.perf_counter() - begun)
                cpu[name].append(time.process_time() - cpu_begun)
    plain, *_ = arms
    flat = {name: [text for texts in found for text in texts] for name, found in answers.items()}
    lengths = [len(generator.tokenizer(text)["input_ids"]) for text in flat[plain]]
    title = f"{checkpoints} checkpoints × {len(rows)} rows, {statistics.mean(lengths):.0f} tokens an answer"
    title += f", {generator.model.dtype}"
    table = Table("", "seconds", "CPU seconds", "rows a second", "speed", "equal answers", title=title)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    for name, middle in medians.items():
        equal = sum(one == other for one, other in zip(flat[name], flat[plain], strict=True))
        speed = f"{medians[plain] / middle:.2f}"
        figures = (f"{middle:.1f}", f"{statistics.median(cpu[name]):.1f}", f"{len(lengths) / middle:.2f}", speed)
        table.add_row(name, *figures, f"{equal} of {len(lengths)}")
    return table


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--rows", type=int, default=80, help="of the 80 test rows, the first so many")
    parser.add_argument("--rounds", type=int, default=1, help="of which the median is shown")
    parser.add_argument("--float32", action="store_true", help="instead of what the hardware does well")
    given = parser.parse_args()
    dtype = torch.float32 if given.float32 else None
    Console(width=120).print(measure(given.checkpoints, given.rows, given.rounds, dtype))


if __name__ == "__main__":
    main()
