"""A dataset's profile as `emissary datasets show` prints it: lines and tables instead of one long value."""

from typing import Any

_MOST_CLASSES = 20
_SHOWN = ("min", "p5", "median", "p95", "max")


def flattened(dataset: dict[str, Any]) -> dict[str, Any]:
    """The API's answer with its profile beside the rest: numbers and words as they are, else lists of rows with the
    same columns. What is empty or not known, and the plots' links, are left out.
    """
    profile = dict(dataset["profile"])
    flat = {name: value for name, value in dataset.items() if name != "profile"}
    flat |= {name: value for name, value in profile.items() if isinstance(value, str | int | float | None)}
    tokens, leakage = profile.get("tokens"), profile.get("leakage")
    if tokens:
        flat["tokens"] = (
            f"of {tokens['base_model']}; {tokens['over_context']} of {tokens['rows']} rows are longer than its "
            f"context, {tokens['context']}"
        )
    for name in ("near_duplicates", "contradictions"):
        if name in profile:
            flat[name] = f"{profile[name]['count']} of {profile[name]['rows']} rows"
    if leakage:
        flat["leakage"] = f"{leakage['rows']} rows are in {leakage['test_dataset_id']} too"
    if plots := profile.get("plots"):
        flat["plots"] = f"{', '.join(plots)} (links: --json)"
    classes = sorted((profile.get("class_counts") or {}).items(), key=lambda item: -item[1])
    flat["classes"] = [{"class": name, "rows": rows} for name, rows in classes[:_MOST_CLASSES]]
    if (more := len(classes) - _MOST_CLASSES) > 0:
        flat["classes"].append({"class": f"… {more} smaller ones", "rows": sum(rows for _, rows in classes[-more:])})
    flat["values_and_lengths"] = _spreads(profile)
    flat["problems"] = profile["problems"]
    flat["warnings"] = [{"warning": warning} for warning in profile["warnings"]]
    return {name: value for name, value in flat.items() if value not in ([], None)}


def _spreads(profile: dict[str, Any]) -> list[dict[str, Any]]:
    fields = profile.get("fields") or {}
    found = {f"{name}, characters": field["characters"] for name, field in fields.items()}
    found["target"] = profile.get("target")
    found["tokens"] = (profile.get("tokens") or {}).get("lengths")
    return [
        {"of": name, **{quantile: f"{spread['quantiles'][quantile]:.4g}" for quantile in _SHOWN}}
        for name, spread in found.items()
        if spread
    ]
