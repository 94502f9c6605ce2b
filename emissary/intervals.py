"""A mean and how sure it is, as people read it."""

from collections.abc import Mapping
from typing import Any


def written(interval: Mapping[str, Any] | None) -> str:
    """`mean`, `low` and `high` in four digits, such as `0.7875 [0.7, 0.875]`; empty where there is nothing."""
    if interval is None:
        return ""
    mean, low, high = (interval[name] for name in ("mean", "low", "high"))
    return f"{mean:.4g}" if low is None else f"{mean:.4g} [{low:.4g}, {high:.4g}]"


def of_base(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By testing function how the base model did, by a checkpoint's `test_summary`, where it was tested."""
    return {name: written(summary["base"]) for name, summary in summaries.items() if summary["base"] is not None}
