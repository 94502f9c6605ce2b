"""What follows when a run's process has died: when it is started again, or the sentence with which it fails."""

import re
from datetime import timedelta

from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Dataset, Engine, FlowBacked, TrainingJob

RESTART_AFTER = (timedelta(0), timedelta(seconds=5))
"""How long after its first crash in a row a run is started again, after its second, …; one more is the last."""
MOST_CRASHES = len(RESTART_AFTER) + 1
_LOWER = {
    "SFT": ("per_device_train_batch_size", "max_length"),
    "GRPO": ("per_device_train_batch_size", "num_generations", "max_completion_length", "max_length"),
}
_NO_MEMORY = re.compile(r"Out of memory\b")  # so the worker begins, when the kernel ended a process for it
_KILLED = re.compile(r"status code: -9\b")


def restart_after(crashes: int) -> timedelta | None:
    """How long to wait after the `crashes`-th crash in a row; None when it is the last."""
    return RESTART_AFTER[crashes - 1] if crashes < MOST_CRASHES else None


def crash_sentence(row: FlowBacked, message: str | None) -> str:
    """Why the run of `row` is given up, whose process died with `message` the last time, and what to do."""
    died = f"The process died {row.crashes} times in a row"
    again = "resume the job" if isinstance(row, TrainingJob) else "start it again"
    if message and _NO_MEMORY.match(message):
        return f"{died}, the last time because it was out of memory. {_memory_advice(row)}"
    if message and _KILLED.search(message):
        return (
            f"{died}, the last time by signal 9, and not by the kernel for lack of memory: somebody or something on "
            f"its machine kills it. Find out what does, then {again}."
        )
    said = f": {message.strip().rstrip('.:')}" if message and message.strip() else ""
    return f"{died}{said}. Its log in the Prefect UI may tell more."


def _memory_advice(row: FlowBacked) -> str:
    """What to lower so that the run of `row` needs less memory."""
    elsewhere = "or run it on a machine with more memory"
    if isinstance(row, TrainingJob):
        names = [name for name in _LOWER[row.training_technique] if name in row.hyper_parameters]
        now = " or ".join(f"{name} (now {row.hyper_parameters[name]})" for name in names)
        return f"Create the job again with a lower {now}, {elsewhere}."
    if isinstance(row, Engine):
        return f"Serve a smaller base model than {row.base_model}, or fewer deployments on one engine, {elsewhere}."
    if isinstance(row, Dataset):
        return "Jobs can be trained on the dataset all the same; start prepare_dataset again with more memory."
    if isinstance(row, PipelineRun):
        return f"Test on fewer rows, {elsewhere}."
    return f"Deploy fewer checkpoints on one engine, {elsewhere}."
