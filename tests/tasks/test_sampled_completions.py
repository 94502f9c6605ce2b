import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tasks.sampled_completions import PER_STEP, SHOWN_EVERY, STEPS, TEXT, Rows, SampledCompletions

LOSS = {"loss": 0.1}


class Training:
    """The trainer of which the callback is one, in a folder."""

    def __init__(self, folder: Path, state: str | None = None) -> None:
        self.folder = folder
        self.tables: list[Rows] = []
        self.sampled = SampledCompletions({"right": 1.0}, self.tables.append, state)

    def step(self, number: int, completions: list[str], logs: dict[str, float] = LOSS, *, saved: bool = False) -> None:
        asked = [{"input_text": f"asked {number}", "expected_output": "wanted"}] * len(completions)
        scores = [{"right": 0.25, "length": float(len(text))} for text in completions]
        self.sampled.note(asked, completions, scores)
        self.sampled.on_log(None, SimpleNamespace(global_step=number), SimpleNamespace(should_save=saved), logs)
        if saved:
            self.save(number)

    def save(self, number: int) -> str:
        folder = self.folder / f"checkpoint-{number}"
        folder.mkdir(parents=True)
        args: Any = SimpleNamespace(output_dir=str(self.folder))
        self.sampled.on_save(args, SimpleNamespace(global_step=number), None)
        return str(folder)


def test_a_row_has_what_was_asked_wanted_and_sampled_with_every_score(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.step(5, [f"text {number}" for number in range(9)])
    (table,) = training.tables
    assert len(table) == PER_STEP
    assert table[1] == {
        "at step": 5,
        "input": "asked 5",
        "expected_output": "wanted",
        "output": "text 1",
        "weighted sum": 0.25,
        "right": 0.25,
        "length": 6.0,
    }


def test_what_is_logged_without_a_loss_is_no_step(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.step(5, ["a"], {"train_runtime": 1.0})
    assert training.tables == []


def test_texts_are_cut_and_printable(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.step(1, ["x" * 10_000, "a\0b\ud800c\x1b[1m\nd", "é"])
    outputs = [row["output"] for row in training.tables[0]]
    assert outputs == ["x" * (TEXT - 1) + "…", "a�b�c�[1m\nd", "é"]
    json.dumps(training.tables).encode()


def test_the_table_is_told_at_once_then_every_few_steps_and_with_every_state(tmp_path: Path) -> None:
    training = Training(tmp_path)
    for number in range(1, 30):
        training.step(number, ["a"], saved=number in (13, 18))
    assert SHOWN_EVERY == 5
    assert [table[-1]["at step"] for table in training.tables] == [1, 6, 11, 13, 18, 23, 28]


def test_the_table_is_bounded(tmp_path: Path) -> None:
    training = Training(tmp_path)
    for number in range(1, 200):
        training.step(number, ["a" * 1000] * 8, saved=number % 10 == 0)
        if number % 10 == 0:
            steps = sorted({row["at step"] for row in training.tables[-1]})
            assert (steps[0], steps[-1]) == (1, number)
            assert len(steps) <= STEPS
    assert len(json.dumps(training.tables[-1])) < 2 * STEPS * PER_STEP * TEXT


def test_a_training_that_goes_on_from_a_state_has_each_step_once(tmp_path: Path) -> None:
    alone, killed = Training(tmp_path / "alone"), Training(tmp_path / "killed")
    for number in range(1, 31):
        alone.step(number, [f"text {number}"])
    alone.save(30)
    for number in range(1, 25):
        killed.step(number, [f"text {number}"])
        if number == 20:
            state = killed.save(number)
    again = Training(tmp_path / "again", state)
    for number in range(21, 31):
        again.step(number, [f"text {number}"])
    again.save(30)
    assert again.tables[-1] == alone.tables[-1]


def test_a_state_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    training = Training(tmp_path, str(tmp_path))
    training.step(1, ["a"])
    assert len(training.tables[0]) == 1
