"""`emissary pipelines`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from emissary.cli.connection import AsJson, InProject, connect, path_of, project_path
from emissary.cli.exit_codes import WrongUsage
from emissary.cli.output import say, show_list, show_one
from emissary.client import Client

app = typer.Typer(
    no_args_is_help=True, help="Retraining that is done again and again, and deployed where it is better."
)
Pipeline = Annotated[str, typer.Argument(help="Id or name of the pipeline.")]
Run = Annotated[str, typer.Argument(help="Id of the run.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; it is kept with the run.")]
Fields = Annotated[
    Path, typer.Argument(metavar="FILE", help="JSON file with the fields of POST …/pipelines.", dir_okay=False)
]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", help="Dataset to train on in this run, instead of the pipeline's.")
]

Objects = Annotated[
    list[str] | None,
    typer.Option("--object", help="Key or s3:// URI of an object to train on in this run, instead of all new ones."),
]


def _path(client: Client, project: str, pipeline: str) -> str:
    return path_of(client, f"{project_path(client, project)}/pipelines", pipeline, "pipeline")


def _fields(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongUsage(f"{file} cannot be read: {error.strerror}; give a JSON file that is there.") from error
    except ValueError as error:
        raise WrongUsage(f"{file} cannot be read as JSON: {error}.") from error


@app.command("list")
def list_(ctx: typer.Context, project: InProject, as_json: AsJson = False) -> None:
    """List a project's pipelines, the newest first."""
    client = connect(ctx)
    rows = client.get(f"{project_path(client, project)}/pipelines")
    show_list(rows, as_json, "id", "name", "paused", "created_at")


@app.command()
def show(ctx: typer.Context, pipeline: Pipeline, project: InProject, as_json: AsJson = False) -> None:
    """Show a pipeline with all that was given."""
    client = connect(ctx)
    show_one(client.get(_path(client, project, pipeline)), as_json)


@app.command()
def create(ctx: typer.Context, file: Fields, project: InProject, as_json: AsJson = False) -> None:
    """Make a pipeline of what is in a JSON file."""
    body = _fields(file)
    client = connect(ctx)
    show_one(client.post(f"{project_path(client, project)}/pipelines", body), as_json)


@app.command()
def update(ctx: typer.Context, pipeline: Pipeline, file: Fields, project: InProject, as_json: AsJson = False) -> None:
    """Have a pipeline be what is in a JSON file, from its next run on; what the file leaves out is as in a new one."""
    body = _fields(file)
    client = connect(ctx)
    show_one(client.call("PUT", _path(client, project, pipeline), json=body), as_json)


@app.command()
def run(
    ctx: typer.Context,
    pipeline: Pipeline,
    project: InProject,
    dataset: Datasets = None,
    object_: Objects = None,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline now."""
    client = connect(ctx)
    collection = f"{project_path(client, project)}/datasets"
    ids = [path_of(client, collection, name, "dataset").rpartition("/")[2] for name in dataset or []]
    body = {name: values for name, values in (("datasets", ids), ("objects", object_)) if values}
    show_one(client.post(f"{_path(client, project, pipeline)}/runs", body), as_json)


@app.command()
def runs(ctx: typer.Context, pipeline: Pipeline, project: InProject, as_json: AsJson = False) -> None:
    """List a pipeline's runs with what came of them, the newest first."""
    client = connect(ctx)
    rows = client.get(f"{_path(client, project, pipeline)}/runs")
    show_list(rows, as_json, "id", "trigger", "status", "outcome", "reason", "training_job_id", "created_at")


@app.command("show-run")
def show_run(ctx: typer.Context, pipeline: Pipeline, run_id: Run, project: InProject, as_json: AsJson = False) -> None:
    """Show a run with what it used and what the gate decided."""
    client = connect(ctx)
    found = client.get(f"{_path(client, project, pipeline)}/runs/{run_id}")
    show_one(found if as_json else _flat(found), as_json)


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """A run's detail with a line for each part of its decision, and the gate's rules as a table."""
    return {name: part for name, part in found.items() if name != "decision"} | (found["decision"] or {})


@app.command("cancel-run")
def cancel_run(ctx: typer.Context, pipeline: Pipeline, run_id: Run, project: InProject) -> None:
    """Stop a run and its training job; what is deployed stays."""
    client = connect(ctx)
    client.post(f"{_path(client, project, pipeline)}/runs/{run_id}/cancel")
    say(f"The run {run_id} is cancelled.")


@app.command()
def approve(ctx: typer.Context, pipeline: Pipeline, run_id: Run, project: InProject, reason: Reason = None) -> None:
    """Have a run deploy what passed the gate."""
    client = connect(ctx)
    client.post(f"{_path(client, project, pipeline)}/runs/{run_id}/approve", {"reason": reason})
    say(f"The run {run_id} is approved.")


@app.command()
def reject(
    ctx: typer.Context,
    pipeline: Pipeline,
    run_id: Run,
    project: InProject,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the run.")],
) -> None:
    """Have a run deploy nothing, though it passed the gate."""
    client = connect(ctx)
    client.post(f"{_path(client, project, pipeline)}/runs/{run_id}/reject", {"reason": reason})
    say(f"The run {run_id} is rejected.")


@app.command()
def pause(ctx: typer.Context, pipeline: Pipeline, project: InProject) -> None:
    """Suspend a pipeline's schedule, and its runs by new datasets."""
    client = connect(ctx)
    client.post(f"{_path(client, project, pipeline)}/pause")
    say(f"The pipeline {pipeline} is paused.")


@app.command()
def unpause(ctx: typer.Context, pipeline: Pipeline, project: InProject) -> None:
    """Have a pipeline's schedule go on, and its runs by new datasets."""
    client = connect(ctx)
    path = _path(client, project, pipeline)
    client.post(f"{path}/unpause")
    found = client.get(path)
    begun_by = ["its schedule"] * (found["schedule"] is not None) + ["new datasets"] * found["triggers"]["on_dataset"]
    if begun_by:
        say(f"The pipeline {pipeline} is run by {' and by '.join(begun_by)} again.")
    else:
        say(f"The pipeline {pipeline} is not paused any more; it has no schedule, and runs when it is told to.")


@app.command()
def delete(ctx: typer.Context, pipeline: Pipeline, project: InProject) -> None:
    """Delete a pipeline and its runs; what they trained and deployed stays."""
    client = connect(ctx)
    client.delete(_path(client, project, pipeline))
    say(f"The pipeline {pipeline} is deleted.")
