"""Completions that GRPO samples, with their rewards: some of them, for a person to read."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

PER_STEP, STEPS, TEXT = 4, 12, 300
"""Completions of a step, steps, and characters of a text that are kept."""
SHOWN_EVERY = 5
"""Logged steps between two tables; each is a version of about 50 kB that Prefect keeps."""

Rows = list[dict[str, Any]]
_FILE = "completions.json"


class SampledCompletions(TrainerCallback):  # type: ignore[misc]
    """Keeps a few completions of one prompt for each of a few logged steps: the newest, and ever fewer older ones.

    `on_rows` gets them when there are the first ones, then every few logged steps and whenever the trainer's state is
    saved, as rows of a table with `at step`, `input` (the prompt's last turn), `expected_output`, `output`, the
    `weighted sum` of the scores by `weights`, and each testing function's score by its name. Texts are cut, and without
    control characters. The rows are part of the trainer's state, so a training that goes on from the one in `state` has
    those up to there, each once.
    """

    def __init__(self, weights: Mapping[str, float], on_rows: Callable[[Rows], None], state: str | None) -> None:
        self._weights, self._on_rows = weights, on_rows
        self._rows: Rows = []
        self._sampled: Rows = []
        self._logged = 0  # steps since the table was shown
        if state is not None:
            with suppress(FileNotFoundError):  # of an earlier version
                self._rows = json.loads((Path(state) / _FILE).read_text())

    def note(
        self, inputs: Sequence[Mapping[str, Any]], completions: Sequence[str], scores: Sequence[Mapping[str, float]]
    ) -> None:
        """Take note of what is sampled for the next step; those of its first prompt come first.

        For each completion its row, with `input_text` and `expected_output`, its text, and its scores by function.
        """
        self._sampled = []
        for row, completion, by_name in list(zip(inputs, completions, scores, strict=True))[:PER_STEP]:
            texts = {"input": row["input_text"], "expected_output": row["expected_output"], "output": completion}
            weighted = sum(self._weights.get(name, 0.0) * score for name, score in by_name.items())
            numbers = {"weighted sum": weighted, **by_name}
            self._sampled.append(
                {name: _cell(text) for name, text in texts.items()}
                | {name: round(number, 4) for name, number in numbers.items()}
            )

    def on_log(self, _args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Keep those of the step that ended."""
        if "loss" not in logs:
            return
        first = not self._rows
        self._rows += [{"at step": state.global_step} | row for row in self._sampled]
        steps = sorted({row["at step"] for row in self._rows})
        if len(steps) > STEPS:
            self._rows = [row for row in self._rows if row["at step"] in steps[::2]]
        self._logged += 1
        # Saving shows them anyway.
        if first or (self._logged >= SHOWN_EVERY and not control.should_save):
            self._show()

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Make the rows a part of the state that was saved."""
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _FILE).write_text(json.dumps(self._rows))
        self._show()

    def _show(self) -> None:
        self._logged = 0
        self._on_rows(list(self._rows))


def _cell(text: str) -> str:
    """`text` as Prefect's database takes it, which is without NUL and halves of surrogate pairs."""
    kept = text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in kept)
