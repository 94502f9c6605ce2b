"""`emissary traffic`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from emissary.cli.connection import AsJson, InProject, connect, given
from emissary.cli.deployments import Deployment, KeepDays, deployment_path
from emissary.cli.exit_codes import WrongUsage
from emissary.cli.output import say, show_list, show_one
from emissary.errors import EmissaryError

app = typer.Typer(no_args_is_help=True, help="What deployments were asked and answered, to correct it and train on it.")
Entry = Annotated[str, typer.Argument(metavar="ENTRY", help="Id of the entry, or of the answer.")]


class _State(StrEnum):
    UNREVIEWED = "unreviewed"
    ACCEPTED = "accepted"
    CORRECTED = "corrected"


class _Only(StrEnum):
    CORRECTED = "corrected"
    REVIEWED = "reviewed"
    ALL = "all"


@app.command()
def capture(
    ctx: typer.Context,
    deployment: Deployment,
    project: InProject,
    percentage: Annotated[float | None, typer.Option(help="Share of the requests to keep; default 100.")] = None,
    keep_days: KeepDays = None,
    off: Annotated[bool, typer.Option("--off", help="Keep nothing from now on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep what a deployment is asked and answers from now on, or keep nothing more."""
    if off and (percentage is not None or keep_days is not None):
        raise WrongUsage("--off: nothing is kept then; leave out --percentage and --keep-days.")
    client = connect(ctx)
    path = f"{deployment_path(client, project, deployment)}/capture"
    if off:
        client.delete(path)
        say(f"The deployment {deployment} keeps nothing more.")
        return
    wanted = given({"sample_percentage": percentage, "keep_days": keep_days})
    show_one(client.call("PUT", path, json=wanted), as_json)


@app.command("list")
def list_(
    ctx: typer.Context,
    deployment: Deployment,
    project: InProject,
    state: Annotated[_State | None, typer.Option(help="Only entries of this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List what a deployment was asked and answered, the newest first."""
    client = connect(ctx)
    wanted = f"limit={limit}" + (f"&state={state}" if state else "")
    rows = client.get(f"{deployment_path(client, project, deployment)}/traffic?{wanted}")
    show_list(rows, as_json, "id", "answer_id", "state", "input", "output", "correction", "created_at")


@app.command()
def show(ctx: typer.Context, deployment: Deployment, entry: Entry, project: InProject, as_json: AsJson = False) -> None:
    """Show an entry."""
    client = connect(ctx)
    show_one(client.get(f"{deployment_path(client, project, deployment)}/traffic/{entry}"), as_json)


@app.command()
def correct(
    ctx: typer.Context,
    deployment: Deployment,
    entry: Entry,
    output: Annotated[
        list[str], typer.Argument(metavar="OUTPUT…", help="The right text, label or labels, number or similarity.")
    ],
    project: InProject,
    as_json: AsJson = False,
) -> None:
    """Say what would have been right."""
    client = connect(ctx)
    path = deployment_path(client, project, deployment)
    body = {"output": _output(client.get(path)["task_type"], output)}
    show_one(client.call("PUT", f"{path}/traffic/{entry}/correction", json=body), as_json)


def _output(task_type: str, words: list[str]) -> Any:
    if task_type == "classification":
        return words[0] if len(words) == 1 else words
    if len(words) > 1:
        raise WrongUsage(f"OUTPUT: for {task_type} it is one; put text of several words into quotes.")
    if task_type == "text-generation":
        return words[0]
    try:
        return float(words[0])
    except ValueError as error:
        raise WrongUsage(f"OUTPUT: {words[0]!r} is no number, which the deployment answers.") from error


@app.command()
def accept(ctx: typer.Context, deployment: Deployment, entry: Entry, project: InProject) -> None:
    """Say that an answer was right."""
    client = connect(ctx)
    client.post(f"{deployment_path(client, project, deployment)}/traffic/{entry}/accept")
    say(f"The answer {entry} is accepted.")


@app.command()
def download(
    ctx: typer.Context,
    deployment: Deployment,
    project: InProject,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    only: Annotated[_Only, typer.Option(help="Which entries; reviewed are those corrected or accepted.")] = (
        _Only.REVIEWED
    ),
) -> None:
    """Save the entries as a dataset, corrections in place of answers."""
    if output.exists():
        raise EmissaryError(f"{output} exists already; name another file with --output.")
    client = connect(ctx)
    path = f"{deployment_path(client, project, deployment)}/traffic.jsonl?only={only}"
    count = 0
    with output.open("x", encoding="utf-8") as file:
        for line in client.lines(path):
            file.write(line + "\n")
            count += 1
    say(f"Saved {count} rows in {output}")


@app.command()
def delete(
    ctx: typer.Context,
    deployment: Deployment,
    project: InProject,
    entry: Annotated[str | None, typer.Argument(help="Id of the entry, or of the answer.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the deployment has kept.")] = False,
) -> None:
    """Delete an entry, or all; datasets that runs made of them stay."""
    if (entry is None) != everything:
        raise WrongUsage("Give the id of an entry, or --all.")
    client = connect(ctx)
    path = f"{deployment_path(client, project, deployment)}/traffic"
    client.delete(path if entry is None else f"{path}/{entry}")
    say(f"{'All traffic' if entry is None else entry} of {deployment} is deleted.")
