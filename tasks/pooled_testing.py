"""A checkpoint's predictions for the test rows of classification, regression and embedding."""

from collections.abc import Callable, Sequence

from emissary.serving.pooled import PooledModel
from tasks.pooled_rows import Row, expected_text, input_text, predicted_text, texts

ROWS_AT_ONCE = 16


def predict_rows(
    model: PooledModel, rows: Sequence[Row], adapter: str, on_progress: Callable[[float], None]
) -> list[tuple[str, str, str]]:
    """(input, expected output, predicted output) of each row, in the rows' order, as testing functions get them.

    `adapter` is the name of a loaded adapter. A text longer than the model's context loses its end. `on_progress`
    gets the share of rows done, 0 to 1; what it raises ends the work.
    """
    task = model.task(adapter)
    order = sorted(range(len(rows)), key=lambda index: -len(input_text(rows[index])))
    tested: dict[int, tuple[str, str, str]] = {}
    for start in range(0, len(rows), ROWS_AT_ONCE):
        indices = order[start : start + ROWS_AT_ONCE]
        ready = [model.row(text, adapter, cut=True) for index in indices for text in texts(rows[index])]
        outputs = model.run(ready)
        per_row = len(ready) // len(indices)
        for position, index in enumerate(indices):
            row, of_row = rows[index], outputs[position * per_row : (position + 1) * per_row]
            tested[index] = (input_text(row), expected_text(row, task), predicted_text(of_row, task))
        on_progress(len(tested) / len(rows))
    return [tested[index] for index in range(len(rows))]
