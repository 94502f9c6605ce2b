"""`emissary engines`."""

from typing import Annotated, Any

import typer

from emissary.cli.connection import AsJson, connect, given, path_of
from emissary.cli.output import say, show_list, show_one
from emissary.cli.schedules import Days, End, Start, Timezone, schedule
from emissary.client import Client

app = typer.Typer(no_args_is_help=True, help="Servers that hold a base model and the adapters deployed on it.")
Engine = Annotated[str, typer.Argument(help="Id or name of the engine.")]


def engine_path(client: Client, engine: str) -> str:
    """The API's path of the engine that `engine` names."""
    return path_of(client, "/v1/engines", engine, "engine")


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the engines, the newest first."""
    fields = ("id", "name", "status", "base_model", "task_type", "deployment_counts", "created_at")
    show_list(connect(ctx).get("/v1/engines"), as_json, *fields)


@app.command()
def show(ctx: typer.Context, engine: Engine, as_json: AsJson = False) -> None:
    """Show an engine with its deployments."""
    client = connect(ctx)
    show_one(client.get(engine_path(client, engine)), as_json)


@app.command()
def create(
    ctx: typer.Context,
    base_model: Annotated[str, typer.Option(help="The base model to serve.")],
    name: Annotated[str | None, typer.Option(help="Name of the engine.")] = None,
    task_type: Annotated[
        str | None, typer.Option(help="text-generation, classification, embedding, regression.")
    ] = None,
    inactive_duration: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="End after this time without a request.")
    ] = None,
    timezone: Timezone = None,
    start: Start = None,
    end: End = None,
    day: Days = None,
    as_json: AsJson = False,
) -> None:
    """Create an engine; it ends after a time without a request, or runs by a schedule."""
    body: dict[str, Any] = {"base_model": base_model, "name": name, "task_type": task_type}
    if (times := schedule(timezone, start, end, day)) is not None:
        body["resource_management_config"] = {"management_type": "schedule", "management_config": times}
    elif inactive_duration is not None:
        config = {"inactive_duration": inactive_duration}
        body["resource_management_config"] = {"management_type": "inactive_timeout", "management_config": config}
    made = connect(ctx).post("/v1/engines", given(body))
    show_one(made, as_json)


@app.command()
def deactivate(ctx: typer.Context, engine: Engine) -> None:
    """End an active engine; its deployments come back with it."""
    client = connect(ctx)
    client.post(f"{engine_path(client, engine)}/deactivate")
    say(f"The engine {engine} is being ended.")


@app.command()
def reactivate(ctx: typer.Context, engine: Engine) -> None:
    """Start an engine that has ended."""
    client = connect(ctx)
    client.post(f"{engine_path(client, engine)}/reactivate")
    say(f"The engine {engine} is starting.")


@app.command()
def delete(ctx: typer.Context, engine: Engine) -> None:
    """Delete an engine and the deployments on it; its run ends."""
    client = connect(ctx)
    client.delete(engine_path(client, engine))
    say(f"The engine {engine} is deleted.")
