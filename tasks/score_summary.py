"""What a checkpoint's scores say: means with how sure they are, the difference to the base model, the worst rows.

SciPy takes a third of a second to import, so this is imported where testing needs it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import bootstrap

from emissary.schemas.training_jobs import FunctionSummary, Interval, WorstRow
from emissary.testing_function_files import goodness
from tasks.pooled_testing import Numbers

WORST, TEXT = 10, 500
_RESAMPLES = 2000
_DRAWN_AT_ONCE = 2**22


def summary(
    tested: Sequence[tuple[str, str, str]],
    scores: Mapping[str, Sequence[float | None]],
    base: Mapping[str, Sequence[float | None]],
) -> dict[str, FunctionSummary]:
    """The summary of each testing function that scored a row.

    `tested` has (input, expected output, output) per row; `scores` and `base` have each function's scores of them, of
    the checkpoint and, where it was tested, of the base model.
    """
    return {
        name: _of_function(name, tested, values, base.get(name) or [None] * len(values))
        for name, values in scores.items()
        if any(value is not None for value in values)
    }


def interval(values: Sequence[float]) -> Interval:
    """The mean of one or more `values`, with a 95 % percentile bootstrap interval of 2,000 resamples (Efron 1979,
    https://doi.org/10.1214/aos/1176344552), the same at every call; of a single value without one.
    """
    numbers: Numbers = np.array(values, dtype=np.float64)
    if len(numbers) == 1:
        return Interval(mean=values[0], low=None, high=None)
    found = bootstrap(
        (numbers,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, _DRAWN_AT_ONCE // len(numbers)),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(mean=float(numbers.mean()), low=float(found.low), high=float(found.high))


def _of_function(
    name: str,
    tested: Sequence[tuple[str, str, str]],
    scores: Sequence[float | None],
    base: Sequence[float | None],
) -> FunctionSummary:
    scored = {index: score for index, score in enumerate(scores) if score is not None}
    base_scores = {index: score for index, score in enumerate(base) if score is not None}
    pairs = [score - base_scores[index] for index, score in scored.items() if index in base_scores]
    worst = sorted(scored, key=lambda index: goodness(name, scored[index]))[:WORST]
    return FunctionSummary(
        **interval(list(scored.values())).model_dump(),
        rows=len(scored),
        base=interval(list(base_scores.values())) if base_scores else None,
        difference=interval(pairs) if pairs else None,
        worst=[_row(index, scored[index], tested[index]) for index in worst],
    )


def _row(index: int, score: float, tested: tuple[str, str, str]) -> WorstRow:
    asked, expected, output = (_cut(text) for text in tested)
    return WorstRow(row=index + 1, score=score, input=asked, expected_output=expected, output=output)


def _cut(text: str) -> str:
    # PostgreSQL cannot keep NUL characters.
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"
