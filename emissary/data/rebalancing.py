"""How many rows of each class to train on, where the job wants other proportions than the dataset's."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence

from emissary.errors import InvalidInput

MAX_ROWS = 10_000_000


def row_counts(wanted: Mapping[str, float], classes: Iterable[str], rows: int) -> dict[str, int]:
    """The rows of each class that `wanted` asks for: ratios, which sum to 1 (within a millionth) and keep the total of
    `rows`, each met to less than one row; or numbers of rows. What sums to 1 is ratios: 1 and 0 is all and none.

    Raises InvalidInput, naming the field rebalance_data, where it does not name exactly the `classes`, or its values
    are neither.
    """
    known = dict.fromkeys(classes)
    some = ", ".join(repr(label) for label in list(known)[:6]) + (", …" if len(known) > 6 else "")
    for label in wanted:
        if label not in known:
            raise InvalidInput(f"rebalance_data: {label[:60]!r} is no class of the training dataset; it has {some}.")
    for label in known:
        if label not in wanted:
            raise InvalidInput(f"rebalance_data: the class {label!r} is missing; name every class.")
    values = list(wanted.values())
    if any(not math.isfinite(value) or value < 0 for value in values):
        raise InvalidInput("rebalance_data: a ratio or number of rows must be 0 or more.")
    if abs(sum(values) - 1) < 1e-6:
        return _shares(wanted, rows)
    if any(value != int(value) for value in values):
        raise InvalidInput(
            f"rebalance_data: ratios must sum to 1, and numbers of rows must be whole; these sum to {sum(values):g}."
        )
    if not 1 <= sum(values) <= MAX_ROWS:
        raise InvalidInput(f"rebalance_data: the numbers of rows must sum to 1 to {MAX_ROWS}, not {sum(values):g}.")
    return {label: int(value) for label, value in wanted.items()}


def one_class_left(
    train_test_split_ratio: float | None, rebalance_data: Mapping[str, float] | None, downsample_size: float | None
) -> InvalidInput:
    """What is raised where a classifier would see one class only, of rows that are chosen by these."""
    settings = {
        "train_test_split_ratio": train_test_split_ratio,
        "rebalance_data": rebalance_data,
        "downsample_size": downsample_size,
    }
    chosen = ", ".join(f"{name} {value}" for name, value in settings.items() if value not in (None, 100))
    return InvalidInput(
        f"All rows that are left to train on ({chosen or 'of all'}) are of one class; train on more rows, or add rows "
        "of another."
    )


def rebalance(classes: Sequence[str], counts: Mapping[str, int], seed: int) -> list[int]:
    """Indices of rows, ascending, some more than once: of each class of `counts` as many as it says.

    `classes` has the class of each row. Fewer rows than there are of a class are drawn without replacement; where
    more are wanted, all are taken and the rest is drawn with replacement. Raises InvalidInput for a class that is
    wanted but has no row.
    """
    generator = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    by_class: dict[str, list[int]] = {}
    for index, label in enumerate(classes):
        by_class.setdefault(label, []).append(index)
    chosen: list[int] = []
    for label, count in counts.items():
        members = by_class.get(label, [])
        if count and not members:
            raise InvalidInput(
                f"rebalance_data: no training row is left of the class {label!r}; hold out fewer rows for testing, "
                "downsample to more, or want none of it."
            )
        chosen += generator.sample(members, count) if count <= len(members) else members
        chosen += generator.choices(members, k=max(count - len(members), 0)) if count > len(members) else []
    return sorted(chosen)


def _shares(ratios: Mapping[str, float], rows: int) -> dict[str, int]:
    """`rows` shared out by the largest-remainder method."""
    total = math.fsum(ratios.values())  # a little off 1, which is many rows of millions
    exact = {label: ratio / total * rows for label, ratio in ratios.items()}
    counts = {label: math.floor(share + 1e-9) for label, share in exact.items()}
    by_loss = sorted(exact, key=lambda label: counts[label] - exact[label])
    for label in by_loss[: rows - sum(counts.values())]:
        counts[label] += 1
    return counts
