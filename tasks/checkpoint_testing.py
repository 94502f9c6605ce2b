"""A checkpoint's answers to the test rows of text generation, and the files of a test's results."""

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from emissary.errors import NotFound
from emissary.serving.generation import GenerationRequest, Generator
from emissary.store.artifacts import CorruptArtifact, artifact_store
from tasks.pooled_testing import Predictions
from tasks.sft_rows import Conversation

_MEANS = "means.json"
REPORT = "report.json"


def answer_rows(
    generator: Generator,
    rows: Sequence[Conversation],
    adapter: str | None,
    max_new_tokens: int,
    on_progress: Callable[[float], None],
) -> list[str]:
    """Greedy answers to all but the last message of each row, in the rows' order.

    `adapter` is the name of a loaded adapter, None the base model. A prompt that leaves no room for
    `max_new_tokens` in the model's context loses its beginning. `on_progress` gets the share of rows answered,
    0 to 1; what it raises ends the work. Raises InvalidInput as `Generator.row` and `Generator.chat_prompt`.
    """
    room = generator.context - max_new_tokens
    prompts = [_prompt(generator, row)[-max(1, room) :] for row in rows]
    # Prompts of like length decode together with little padding; the longest first, so that what does not fit
    # into memory shows at once.
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]), reverse=True)
    index = {
        generator.row(GenerationRequest(prompts[i], adapter=adapter, max_new_tokens=max_new_tokens)): i for i in order
    }
    waiting, batch = deque(index), generator.new_batch()
    answers: dict[int, str] = {}
    while waiting or batch.rows:
        batch.admit(waiting)
        for event in batch.step():
            if event.result is not None:
                answers[index[event.row]] = event.result.text
                on_progress(len(answers) / len(rows))
    return [answers[i] for i in range(len(rows))]


def write_results(
    folder: Path,
    tested: Sequence[tuple[str, str, str]],
    scores: Mapping[str, Sequence[float | None]],
    predictions: Predictions | None = None,
    errors: Mapping[str, Sequence[str | None]] | None = None,
) -> None:
    """Write results.csv and results.parquet to `folder`, a line per row of `tested` (input, expected output, output).

    Beside them, `means.json` has the scores' means.

    Columns: input, expected_output, output, of `predictions` of a classification the probability of each label as a
    JSON object, and each testing function's score, empty where it gave none; where there are any `errors` (of each
    function, per row), these as a JSON object by function. Texts are exactly as they were, also those that a
    spreadsheet takes for formulas.
    """
    inputs, expected, outputs = zip(*tested, strict=True)
    table = pa.table(
        {
            "input": pa.array(inputs, pa.string()),
            "expected_output": pa.array(expected, pa.string()),
            "output": pa.array(outputs, pa.string()),
            **_probabilities(predictions),
            **_errors(errors or {}),
            **{function: pa.array(values, pa.float64()) for function, values in scores.items()},
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.csv.write_csv(table, folder / "results.csv")
    pyarrow.parquet.write_table(table, folder / "results.parquet", compression="zstd")
    (folder / _MEANS).write_text(json.dumps(aggregate(scores)))


def _probabilities(predictions: Predictions | None) -> dict[str, pa.Array]:
    if predictions is None or predictions.task.task_type != "classification":
        return {}
    labels = predictions.task.labels
    rows = ({label: float(f"{p:.6g}") for label, p in zip(labels, row, strict=True)} for row in predictions.predicted)
    return {"probabilities": pa.array([json.dumps(row, ensure_ascii=False) for row in rows], pa.string())}


def _errors(errors: Mapping[str, Sequence[str | None]]) -> dict[str, pa.Array]:
    rows = [
        {name: error for name, error in zip(errors, row, strict=True) if error is not None}
        for row in zip(*errors.values(), strict=True)
    ]
    if not any(rows):
        return {}
    return {"errors": pa.array([json.dumps(row, ensure_ascii=False) if row else "" for row in rows], pa.string())}


@dataclass(frozen=True)
class Results:
    """What came of a checkpoint's test: each testing function's mean; metrics and names of plots, as
    `checkpoint_report.Report` writes them, None where an earlier version tested; and the plots: name → PNG.
    """

    means: dict[str, float]
    report: dict[str, Any] | None
    plots: dict[str, bytes]


def read_results(folder: Path) -> Results:
    """What `write_results` and `Report.write` wrote into `folder`."""
    means = json.loads((folder / _MEANS).read_text())
    if not (folder / REPORT).exists():
        return Results(means, None, {})
    report = json.loads((folder / REPORT).read_text())
    return Results(means, report, {name: (folder / f"{name}.png").read_bytes() for name in report["plots"]})


def published_results(key: str) -> Results | None:
    """The results published under `key`; None where there are none whole."""
    store = artifact_store()
    try:
        return read_results(store.folder(key))
    except NotFound:
        return None
    except CorruptArtifact:
        store.delete(key)
        return None


def aggregate(scores: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """Each testing function's mean over the rows that it scored; a function that scored none is left out."""
    scored = {name: [value for value in values if value is not None] for name, values in scores.items()}
    return {name: sum(values) / len(values) for name, values in scored.items() if values}


def _prompt(generator: Generator, row: Conversation) -> list[int]:
    """The prompt's token ids, as in training."""
    if row["kind"] == "prompt" and not generator.tokenizer.chat_template:
        return generator.text_prompt(row["messages"][0]["content"])
    return generator.chat_prompt(row["messages"][:-1])


def last_question(row: Conversation) -> str:
    """The last user message before the answer, or what else comes last before it."""
    before = row["messages"][:-1]
    asked = [message["content"] for message in before if message["role"] == "user"]
    return asked[-1] if asked else before[-1]["content"]
