"""`emissary checkpoints`."""

from typing import Annotated, Any

import typer

from emissary import intervals
from emissary.cli.connection import AsJson, InProject, connect
from emissary.cli.downloading import Output, download
from emissary.cli.exit_codes import WrongUsage
from emissary.cli.jobs import Job, job_path
from emissary.cli.output import show_json, show_list, show_one
from emissary.client import Client
from emissary.errors import NotFound

app = typer.Typer(no_args_is_help=True, help="What training jobs made: adapters with their scores.")
Number = Annotated[str, typer.Argument(metavar="NUMBER|best", help="Number of the checkpoint, or `best`.")]


def _all(client: Client, project: str, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{job_path(client, project, job)}/checkpoints")
    return found


def _one(client: Client, project: str, job: str, number: str) -> dict[str, Any]:
    if number != "best" and not number.isdecimal():
        raise WrongUsage(f"{number!r} is neither the number of a checkpoint nor `best`.")
    for row in _all(client, project, job):
        if row["is_best"] if number == "best" else row["checkpoint"] == int(number):
            return row
    raise NotFound(f"The job {job} has no checkpoint {number}.")


def _scores(row: dict[str, Any]) -> dict[str, str]:
    results = row.get("test_results") or {"aggregated_test_result": {}, "metrics": {}}
    metrics = {name: "" if value is None else f"{value:.6g}" for name, value in results["metrics"].items()}
    scores: dict[str, str] = results["aggregated_test_result"]
    return metrics | scores | {name: intervals.written(summary) for name, summary in _summaries(row).items()}


def _summaries(row: dict[str, Any]) -> dict[str, Any]:
    """The `test_summary`, which is not there where nothing or an earlier version tested."""
    return dict((row.get("test_results") or {}).get("test_summary", {}))


def _spread_out(row: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with its `test_summary` as lists, which are shown as tables."""
    summaries = _summaries(row)
    if not summaries:
        return row
    shown = ("mean", "base", "difference")
    scores = [
        {"testing_function": name, "rows": summary["rows"]}
        | {column: intervals.written(summary if column == "mean" else summary[column]) for column in shown}
        for name, summary in summaries.items()
    ]
    worst = {f"worst rows by {name}": summary["worst"] for name, summary in summaries.items()}
    results = {name: value for name, value in row["test_results"].items() if name != "test_summary"}
    return row | {"test_results": results, "scores": scores} | worst


@app.command("list")
def list_(ctx: typer.Context, job: Job, project: InProject, as_json: AsJson = False) -> None:
    """List a job's checkpoints with their losses, metrics and scores, and the base model's scores."""
    rows = _all(connect(ctx), project, job)
    if as_json:
        show_json(rows)
        return
    functions = {name: None for row in rows for name in _scores(row)}
    fields = ("checkpoint", "is_best", "train_loss", "test_loss", *functions, "created_at")
    base = next((found for row in rows if (found := intervals.of_base(_summaries(row)))), None)
    first = [] if base is None else [{"checkpoint": "base"} | base]
    show_list([*first, *(row | _scores(row) for row in rows)], False, *fields)


@app.command()
def show(ctx: typer.Context, job: Job, number: Number, project: InProject, as_json: AsJson = False) -> None:
    """Show a checkpoint with its scores, its worst rows, metrics and download links."""
    row = _one(connect(ctx), project, job, number)
    show_one(row if as_json else _spread_out(row), as_json)


@app.command("download")
def download_(ctx: typer.Context, job: Job, number: Number, project: InProject, output: Output = None) -> None:
    """Save a checkpoint's adapter as one archive."""
    download(_one(connect(ctx), project, job, number)["model_download_url"], output)
