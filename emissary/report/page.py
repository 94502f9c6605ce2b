"""A report on a training job as one page of HTML that needs nothing beside it."""

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from emissary.report.calling import commands
from emissary.report.curves import curves
from emissary.report.durations import durations
from emissary.report.gathering import Answer, Gathered
from emissary.report.scored_rows import Extremes, extremes

_QUANTILES = ("min", "p5", "median", "p95", "max")
_MISSING = "–"
_LAST = {"Success": "succeeded", "Failed": "failed", "TimedOut": "failed", "Cancelled": "cancelled"}
"""Status of an ended job → kind of its last event."""


def page(found: Gathered, now: float) -> str:
    """The report, made at `now` (UNIX seconds). All text in it that comes from the API is escaped."""
    environment = Environment(
        loader=PackageLoader("emissary", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"day": _day, "duration": _duration, "number": _number, "picture": _picture, "words": _words}
    return environment.get_template("page.html").render(
        project=found.project,
        job=found.job,
        ended={row["kind"]: row["created_at"] for row in found.events}.get(_LAST.get(found.job["status"], "")),
        datasets=[(row.use, row.detail, _lengths(row.detail["profile"]), row.plots) for row in found.datasets],
        notes=_notes(found.events),
        checkpoints=found.checkpoints,
        scores=_columns(found.checkpoints, "aggregated_test_result"),
        metrics=_columns(found.checkpoints, "metrics"),
        shown=found.shown,
        plots=found.plots,
        ranking=_ranking(found),
        curves=curves(found.job),
        durations=durations(found.events, found.job["training_loss"], now),
        call=_call(found),
        quantiles=_QUANTILES,
        now=now,
    )


def _columns(checkpoints: Iterable[Answer], results: str) -> list[str]:
    """Names of all testing functions or metrics that some checkpoint has a result of."""
    return list({name: None for row in checkpoints for name in (row.get("test_results") or {}).get(results, {})})


def _ranking(found: Gathered) -> dict[str, Any] | None:
    """The worst and best rows by the job's first testing function; None where the job was not tested by one."""
    if found.results is None or not found.job["test_functions"]:
        return None
    function = found.job["test_functions"][0]
    known = found.functions.get(function)
    higher_is_better = known is None or known["higher_is_better"]
    rows: Extremes = extremes(found.results, function, higher_is_better=higher_is_better)
    return {"function": function, "higher": higher_is_better, "known": known is not None, "rows": rows}


def _lengths(profile: Answer) -> dict[str, Answer]:
    """What is measured of a dataset's rows → how it is spread; empty before the dataset is profiled."""
    spreads = {"target": profile.get("target")}
    spreads |= {f"{name}, characters": field["characters"] for name, field in profile.get("fields", {}).items()}
    if tokens := profile.get("tokens"):
        spreads[f"tokens of {tokens['base_model']}"] = tokens["lengths"]
    return {name: spread for name, spread in spreads.items() if spread is not None}


def _notes(events: Iterable[Answer]) -> list[str]:
    """What a job's events say that a reader of its results should know, each once."""
    return list(dict.fromkeys(note for event in events if (note := _note(event["kind"], event["details"]))))


def _note(kind: str, details: Mapping[str, Any]) -> str | None:
    match kind:
        case "warning":
            return str(details["message"])
        case "chosen":
            chosen = ", ".join(f"{name} {value}" for name, value in details.items() if name != "reason")
            return f"Chosen by the run: {chosen}. {details['reason']}"
        case "truncated" if "max_new_tokens" in details:
            return (
                f"Test prompts that left no room for max_new_tokens ({details['max_new_tokens']}) in the model's "
                f"context and lost their beginning: {details['rows']} rows."
            )
        case "truncated":
            return f"Longer than max_length ({details['max_length']} tokens) and cut to it: {details['rows']} rows."
        case "stopped_early":
            return (
                f"Training stopped early after epoch {details['epoch']}: {details['metric']} was best in checkpoint "
                f"{details['best']}, and no better in the next {details['patience']}."
            )
    return None


def _call(found: Gathered) -> str | None:
    """Commands that call the best checkpoint, or the last where none is; None without checkpoints."""
    numbers = [row["checkpoint"] for row in found.checkpoints]
    if not numbers:
        return None
    return commands(found.project["id"], found.job, found.job["best_checkpoint"] or numbers[-1])


def _picture(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _number(value: float | str | None) -> str:
    return _MISSING if value is None else f"{float(value):.4g}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
