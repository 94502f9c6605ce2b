"""`emissary deployments`."""

from typing import Annotated, Any

import typer

from emissary.cli.checkpoint_numbers import number_or_best
from emissary.cli.connection import AsJson, InProject, connect, find, given, project_path
from emissary.cli.engines import engine_path
from emissary.cli.exit_codes import WrongUsage
from emissary.cli.output import say, show_list, show_one
from emissary.cli.schedules import Days, End, Start, Timezone, schedule
from emissary.client import Client

app = typer.Typer(no_args_is_help=True, help="Names under which checkpoints are called.")
Deployment = Annotated[str, typer.Argument(help="Id or name of the deployment.")]
KeepDays = Annotated[int | None, typer.Option(help="Days after which what was kept is removed; default 30.")]
_GONE = ("Terminated", "Failed", "Cancelled", "TimedOut")


def deployment_path(client: Client, project: str, deployment: str) -> str:
    """The API's path of the deployment.

    A name is free again once its deployment is gone, so it means the one that is not, where there is one."""
    collection = f"{project_path(client, project)}/deployments"
    rows = client.get(collection)
    live = [row for row in rows if row["name"] == deployment and row["status"] not in _GONE]
    return f"{collection}/{find(live or rows, deployment, 'deployment')['id']}"


@app.command("list")
def list_(ctx: typer.Context, project: InProject, as_json: AsJson = False) -> None:
    """List a project's deployments, the newest first."""
    client = connect(ctx)
    rows = client.get(f"{project_path(client, project)}/deployments")
    show_list(rows, as_json, "id", "name", "status", "created_at")


@app.command()
def show(ctx: typer.Context, deployment: Deployment, project: InProject, as_json: AsJson = False) -> None:
    """Show a deployment with what it serves."""
    client = connect(ctx)
    show_one(client.get(deployment_path(client, project, deployment)), as_json)


@app.command()
def create(
    ctx: typer.Context,
    project: InProject,
    job: Annotated[str, typer.Option(help="Id or name of the training job, or the name of a base model.")],
    checkpoint: Annotated[str, typer.Option(help="Number of the checkpoint, `best`, or 0 for the base model.")],
    name: Annotated[str | None, typer.Option(help="Name to call it by.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Engine to deploy on; default one that fits, which is made where there is none.")
    ] = None,
    inactive_timeout: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="A new engine ends after this time without a request.")
    ] = None,
    capture: Annotated[
        float | None, typer.Option(metavar="PERCENTAGE", help="Keep this share of what it is asked and answers.")
    ] = None,
    keep_days: KeepDays = None,
    timezone: Timezone = None,
    start: Start = None,
    end: End = None,
    day: Days = None,
    as_json: AsJson = False,
) -> None:
    """Deploy a checkpoint, to be called by its name."""
    number = number_or_best(checkpoint)
    if keep_days is not None and capture is None:
        raise WrongUsage("--keep-days: nothing is kept without --capture.")
    client = connect(ctx)
    path = project_path(client, project)
    is_base_model = any(model["name"] == job for model in client.get("/v1/models"))
    source = job if is_base_model else find(client.get(f"{path}/training-jobs"), job, "training job")["id"]
    body: dict[str, Any] = {
        "checkpoint": number,
        "name": name,
        "description": description,
        "inactive_timeout": inactive_timeout,
        "schedule": schedule(timezone, start, end, day),
        "capture": None if capture is None else given({"sample_percentage": capture, "keep_days": keep_days}),
    }
    if engine is None:
        made_at, body["training_job_id"] = f"{path}/deployments", source
    else:
        made_at, body["training_id"] = f"{engine_path(client, engine)}/deploy", source
        body["project_id"] = path.rpartition("/")[2]
    show_one(client.post(made_at, given(body)), as_json)


@app.command()
def reactivate(ctx: typer.Context, deployment: Deployment, project: InProject) -> None:
    """Start the engine of a deactivated deployment."""
    client = connect(ctx)
    client.post(f"{deployment_path(client, project, deployment)}/reactivate")
    say(f"The deployment {deployment} is coming back.")


@app.command()
def delete(ctx: typer.Context, deployment: Deployment, project: InProject) -> None:
    """Stop serving a deployment; its engine goes on."""
    client = connect(ctx)
    client.delete(deployment_path(client, project, deployment))
    say(f"The deployment {deployment} is deleted.")
