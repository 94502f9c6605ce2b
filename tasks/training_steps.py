"""What the steps of a training tell the caller, and where they stop and save."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from emissary.errors import InvalidInput


@dataclass(frozen=True)
class LossPoint:
    """The training loss, a mean over the steps since the point before; `timestamp` in UNIX seconds."""

    timestamp: int
    step: int
    epoch: float
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class FinishedCheckpoint:
    """A complete adapter in `folder`, ready to load or download: the `number`th, counted from 1.

    `train_loss` is the mean over the steps since the checkpoint before, `test_loss` None where it is not measured.
    """

    number: int
    folder: Path
    epoch: float
    train_loss: float
    test_loss: float | None


class Stopped(Exception):
    """Unwinds the trainer when it is asked to stop."""


@dataclass(frozen=True)
class Caller:
    """What a training tells its caller, and what it asks.

    `on_progress` gets the share of steps done, 0 to 1; `on_state` the folder of a complete trainer state, named
    `checkpoint-<step>`, which it may take away. When `should_stop()` turns true, training ends within a step, without
    another state or checkpoint; when `should_save()` does, it saves its state behind the step and ends. When
    `ends_with(n)` is true, training ends with checkpoint n; it is asked after `on_checkpoint` of each but the last one,
    and again by a run that goes on from there.
    """

    on_log: Callable[[LossPoint], None]
    on_progress: Callable[[float], None]
    on_state: Callable[[Path], None]
    on_checkpoint: Callable[[FinishedCheckpoint], None]
    should_stop: Callable[[], bool]
    should_save: Callable[[], bool]
    ends_with: Callable[[int], bool] = lambda _number: False


def once_each(work_dir: Path, caller: Caller, make: Callable[[int, Path], FinishedCheckpoint]) -> Callable[[int], None]:
    """A function that has checkpoint n made in `work_dir`/checkpoints/<n> and handed over, unless that is done.

    `work_dir`/complete/<n> notes that it is.
    """

    def finish(number: int) -> None:
        done = work_dir / "complete" / str(number)
        if done.exists():
            return
        caller.on_checkpoint(make(number, work_dir / "checkpoints" / str(number)))
        done.parent.mkdir(exist_ok=True)
        done.touch()

    return finish


class Steps(TrainerCallback):  # type: ignore[misc]
    """Reports to the caller, and saves every `checkpoint_steps`; after a save, `finish(n)` makes checkpoint n."""

    def __init__(self, checkpoint_steps: int, caller: Caller, finish: Callable[[int], None]) -> None:
        self._checkpoint_steps, self._caller, self._finish = checkpoint_steps, caller, finish

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._stop_if_asked()
        self._caller.on_progress(state.global_step / state.max_steps)
        # Resumed from a state saved just before a kill: its checkpoint may still be missing.
        self._finish_checkpoint(state)

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self._stop_if_asked()

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        self._stop_if_asked()
        # What is evaluated is the state that was saved just before.
        self._stop_if_saved()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stop_if_asked()
        self._caller.on_progress(state.global_step / state.max_steps)
        control.should_save = control.should_save or self._is_checkpoint(state) or self._caller.should_save()
        # The loss since the last point is not part of the saved state. It is also looked at, before the save.
        control.should_log = control.should_log or control.should_save

    def on_log(self, args: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        loss = finite(logs["loss"], state.global_step, args.learning_rate)
        finite(logs.get("grad_norm", 0.0), state.global_step, args.learning_rate)
        point = LossPoint(int(time.time()), state.global_step, state.epoch, loss, float(logs["learning_rate"]))
        self._caller.on_log(self._point(point, logs))

    def _point(self, point: LossPoint, _logs: dict[str, float]) -> LossPoint:
        """What is reported of `point`; trainers that log more than the loss add it here."""
        return point

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._caller.on_state(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._stop_if_saved()
        self._finish_checkpoint(state)

    def _is_checkpoint(self, state: Any) -> bool:
        return bool(state.global_step % self._checkpoint_steps == 0 or state.global_step == state.max_steps)

    def _finish_checkpoint(self, state: Any) -> None:
        if state.global_step == 0 or not self._is_checkpoint(state):
            return
        number = math.ceil(state.global_step / self._checkpoint_steps)
        self._finish(number)
        if state.global_step < state.max_steps:
            # What is done there may draw random numbers, which a run that resumes here would not.
            with torch.random.fork_rng():
                ends = self._caller.ends_with(number)
            if ends:
                raise Stopped

    def _stop_if_asked(self) -> None:
        if self._caller.should_stop():
            raise Stopped

    def _stop_if_saved(self) -> None:
        if self._caller.should_save():
            raise Stopped


def finite(value: float, step: int, learning_rate: float) -> float:
    """`value`, the loss or its gradient's norm after `step`. Raises InvalidInput when it is NaN or infinite."""
    if not math.isfinite(value):
        raise InvalidInput(
            f"Training diverged: at step {step} the loss or its gradient is no longer a finite number. "
            f"Lower learning_rate, which is {learning_rate:g}, and train again.",
            code="training_diverged",
        )
    return float(value)


def mean_loss(history: list[dict[str, float]], after: int) -> float:
    """Mean training loss of the steps after step `after`, from logged means of the steps between."""
    total, last = 0.0, after
    for entry in history:
        if "loss" in entry and entry["step"] > after:
            total += entry["loss"] * (entry["step"] - last)
            last = int(entry["step"])
    return total / (last - after)
