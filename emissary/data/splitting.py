"""Which rows to train on and which to hold out, repeatable by seed."""

import math
import random
from collections.abc import Hashable, Sequence

from emissary.errors import InvalidInput


def split(
    rows: int, percent_test: float, seed: int, strata: Sequence[Hashable] | None = None
) -> tuple[list[int], list[int]]:
    """Return the indices, ascending, of the rows to train on and of the rows held out for testing.

    Of `rows` rows the rounded `percent_test` percent is held out, but with two rows or more at least one is
    on each side; a single row is trained on. `strata` has a value per row, such as its class: of the rows of
    one value the same share is held out, to less than one row. Raises InvalidInput for a percentage outside
    1 to 99, and ValueError if `strata` is not as long as there are rows.
    """
    if not 1 <= percent_test <= 99:
        raise InvalidInput(f"The percentage of rows held out for testing must be from 1 to 99, and is {percent_test}.")
    if strata is not None and len(strata) != rows:
        raise ValueError(f"There are {len(strata)} strata for {rows} rows.")
    if rows < 2:
        return list(range(rows)), []
    members: dict[Hashable, list[int]] = {}
    for index in range(rows):
        members.setdefault(strata[index] if strata is not None else None, []).append(index)

    # Largest remainder: every stratum gives its share rounded down, and those that lost most by it one row
    # more. Shuffled first, so that among equals it is not always the strata of the file's first rows.
    generator = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    order = generator.sample(list(members), len(members))
    total = held_out(rows, percent_test)
    shares = {stratum: len(indices) * percent_test / 100 for stratum, indices in members.items()}
    counts = {stratum: math.floor(share) for stratum, share in shares.items()}
    by_loss = sorted(order, key=lambda stratum: counts[stratum] - shares[stratum])
    for stratum in by_loss[: total - sum(counts.values())]:
        counts[stratum] += 1

    test = {index for stratum, indices in members.items() for index in generator.sample(indices, counts[stratum])}
    return [index for index in range(rows) if index not in test], sorted(test)


def downsample(indices: Sequence[int], percent: float, seed: int) -> list[int]:
    """Return the rounded `percent` percent of the indices, at least one if there are any, in their order.

    Raises InvalidInput for a percentage that is not above 0 and at most 100.
    """
    if not 0 < percent <= 100:
        raise InvalidInput(f"downsample_size must be above 0 and at most 100 percent, and is {percent}.")
    count = downsampled(len(indices), percent)
    chosen = random.Random(seed).sample(range(len(indices)), count)  # noqa: S311 - repeatable, not a secret
    return [indices[position] for position in sorted(chosen)]


def held_out(rows: int, percent_test: float) -> int:
    """How many of `rows` rows `split` holds out."""
    return min(max(round(rows * percent_test / 100), 1), rows - 1) if rows > 1 else 0


def downsampled(rows: int, percent: float) -> int:
    """How many of `rows` rows `downsample` keeps."""
    return min(max(round(rows * percent / 100), 1), rows)
