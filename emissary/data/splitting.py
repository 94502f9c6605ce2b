"""Which rows to train on and which to hold out, repeatable by seed."""

import math
import random
from collections.abc import Hashable, Mapping, Sequence

from emissary.errors import InvalidInput

Members = dict[Hashable, list[list[int]]]
"""Stratum → its groups of rows, by index."""


def split(
    rows: int,
    percent_test: float,
    seed: int,
    strata: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> tuple[list[int], list[int]]:
    """Return the indices, ascending, of the rows to train on and of the rows held out for testing.

    Of `rows` rows the rounded `percent_test` percent is held out, but with two rows or more at least one is
    on each side; a single row is trained on. `strata` has a value per row, such as its class: of the rows of
    one value the same share is held out, to less than one row. `groups` has a value per row too: rows of one group,
    such as those with the same input, stay together and count to the stratum of the first of them, so that a share is
    met only to less than a group where no smaller one fits. Raises InvalidInput for a percentage outside 1 to 99, or
    where all rows are one group, and ValueError if `strata` or `groups` is not as long as there are rows.
    """
    if not 1 <= percent_test <= 99:
        raise InvalidInput(f"The percentage of rows held out for testing must be from 1 to 99, and is {percent_test}.")
    for name, values in (("strata", strata), ("groups", groups)):
        if values is not None and len(values) != rows:
            raise ValueError(f"There are {len(values)} {name} for {rows} rows.")
    if rows < 2:
        return list(range(rows)), []
    members = _members(rows, strata, groups)
    together = [group for grouped in members.values() for group in grouped]
    if len(together) < 2:
        raise InvalidInput(
            "All rows have the same input, so none can be held out for testing; add rows with others, or give a test "
            "dataset."
        )

    generator = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    sizes = {stratum: sum(map(len, grouped)) for stratum, grouped in members.items()}
    counts = _share_out(sizes, percent_test, held_out(rows, percent_test), generator)
    test: set[int] = set()
    for stratum, grouped in members.items():
        left = counts[stratum]
        for group in generator.sample(grouped, len(grouped)):
            if len(group) <= left:
                test.update(group)
                left -= len(group)
    if not test:
        smallest = min(together, key=len)
        test.update(smallest)
    return [index for index in range(rows) if index not in test], sorted(test)


def downsample(
    indices: Sequence[int], percent: float, seed: int, strata: Sequence[Hashable] | None = None
) -> list[int]:
    """Return the rounded `percent` percent of the indices, at least one if there are any, in their order.

    `strata` has a value per index: of those with one value the same share is kept, to less than one. Raises
    InvalidInput for a percentage that is not above 0 and at most 100.
    """
    if not 0 < percent <= 100:
        raise InvalidInput(f"downsample_size must be above 0 and at most 100 percent, and is {percent}.")
    if not indices:
        return []
    members: dict[Hashable, list[int]] = {}
    for position in range(len(indices)):
        members.setdefault(strata[position] if strata is not None else None, []).append(position)
    generator = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    sizes = {stratum: len(positions) for stratum, positions in members.items()}
    counts = _share_out(sizes, percent, downsampled(len(indices), percent), generator)
    chosen = [each for stratum, found in members.items() for each in generator.sample(found, counts[stratum])]
    return [indices[position] for position in sorted(chosen)]


def held_out(rows: int, percent_test: float) -> int:
    """How many of `rows` rows `split` holds out, unless groups that stay together do not add up to it."""
    return min(max(round(rows * percent_test / 100), 1), rows - 1) if rows > 1 else 0


def downsampled(rows: int, percent: float) -> int:
    """How many of `rows` rows `downsample` keeps."""
    return min(max(round(rows * percent / 100), 1), rows)


def _members(rows: int, strata: Sequence[Hashable] | None, groups: Sequence[Hashable] | None) -> Members:
    members: Members = {}
    known: dict[Hashable, list[int]] = {}
    for index in range(rows):
        name = index if groups is None else groups[index]
        if name in known:
            known[name].append(index)
        else:
            known[name] = [index]
            members.setdefault(strata[index] if strata is not None else None, []).append(known[name])
    return members


def _share_out(
    sizes: Mapping[Hashable, int], percent: float, total: int, generator: random.Random
) -> dict[Hashable, int]:
    """How many rows of each stratum make up `total`, by the largest-remainder method.

    Every stratum gives its share rounded down, and those that lost most by it one row more; one that would be used up
    by it comes after the others. Shuffled first, so that among equals it is not always the strata of the first rows.
    """
    order = generator.sample(list(sizes), len(sizes))
    shares = {stratum: size * percent / 100 for stratum, size in sizes.items()}
    counts = {stratum: math.floor(share) for stratum, share in shares.items()}
    by_loss = sorted(
        order,
        key=lambda one: (shares[one] == counts[one], counts[one] + 1 >= sizes[one], counts[one] - shares[one]),
    )
    for stratum in by_loss[: total - sum(counts.values())]:
        counts[stratum] += 1
    return counts
