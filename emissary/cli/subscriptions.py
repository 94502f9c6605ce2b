"""`emissary subscriptions`."""

from typing import Annotated, Literal, get_args

import typer

from emissary.cli.connection import AsJson, InProject, connect, given, path_of, project_path
from emissary.cli.output import say, show_list, show_one
from emissary.client import Client
from emissary.schemas.subscriptions import Event

app = typer.Typer(no_args_is_help=True, help="Who is told of what happens to jobs, deployments and pipelines.")
Subscription = Annotated[str, typer.Argument(help="Id or name of the subscription.")]
_KEEP = "Keep the secret now: it is not shown again."


def _collection(client: Client, project: str) -> str:
    return f"{project_path(client, project)}/subscriptions"


def _path(client: Client, project: str, subscription: str) -> str:
    return path_of(client, _collection(client, project), subscription, "subscription")


@app.command("list")
def list_(ctx: typer.Context, project: InProject, as_json: AsJson = False) -> None:
    """List a project's subscriptions, the newest first."""
    client = connect(ctx)
    rows = client.get(_collection(client, project))
    show_list(rows, as_json, "id", "name", "url", "block", "events", "paused", "created_at")


@app.command()
def show(ctx: typer.Context, subscription: Subscription, project: InProject, as_json: AsJson = False) -> None:
    """Show a subscription, without its secret."""
    client = connect(ctx)
    show_one(client.get(_path(client, project, subscription)), as_json)


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Who is told.")],
    project: InProject,
    url: Annotated[str | None, typer.Option(help="Where events are posted to.")] = None,
    block: Annotated[
        str | None, typer.Option(help="Or a notification block of Prefect, such as slack-webhook/ops.")
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option("--event", help=f"What it is told of, once for each; default all: {', '.join(get_args(Event))}."),
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a subscription; its secret is shown once."""
    client = connect(ctx)
    fields = {"name": name, "url": url, "block": block, "description": description}
    row = client.post(_collection(client, project), given(fields) | {"events": event or list(get_args(Event))})
    show_one(row, as_json)
    if row["secret"]:
        say(_KEEP)


@app.command()
def rotate(
    ctx: typer.Context,
    subscription: Subscription,
    project: InProject,
    overlap_seconds: Annotated[int, typer.Option(help="How long it is signed by the secret before, too.")] = 86400,
    as_json: AsJson = False,
) -> None:
    """Give a subscription a new secret, which is shown once."""
    client = connect(ctx)
    path = _path(client, project, subscription)
    show_one(client.post(f"{path}/rotate", {"overlap_seconds": overlap_seconds}), as_json)
    say(_KEEP)


@app.command()
def pause(ctx: typer.Context, subscription: Subscription, project: InProject) -> None:
    """Tell a subscription nothing until it is unpaused."""
    client = connect(ctx)
    client.post(f"{_path(client, project, subscription)}/pause")
    say(f"The subscription {subscription} is paused.")


@app.command()
def unpause(ctx: typer.Context, subscription: Subscription, project: InProject) -> None:
    """Tell a subscription of events again."""
    client = connect(ctx)
    client.post(f"{_path(client, project, subscription)}/unpause")
    say(f"The subscription {subscription} is told of events again.")


@app.command("test")
def ping(ctx: typer.Context, subscription: Subscription, project: InProject, as_json: AsJson = False) -> None:
    """Send a subscription a ping; `deliveries` shows what came of it."""
    client = connect(ctx)
    show_one(client.post(f"{_path(client, project, subscription)}/test"), as_json)


@app.command()
def deliveries(
    ctx: typer.Context,
    subscription: Subscription,
    project: InProject,
    status: Annotated[
        Literal["Pending", "Delivered", "Dead"] | None, typer.Option(help="Only those in this status.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what a subscription was told in the last thirty days, or is to be, the newest first."""
    client = connect(ctx)
    wanted = "" if status is None else f"?status={status}"
    rows = client.get(f"{_path(client, project, subscription)}/deliveries{wanted}")
    show_list(rows, as_json, "id", "event", "status", "attempts", "next_attempt_at", "answer", "created_at")


@app.command()
def redeliver(
    ctx: typer.Context,
    subscription: Subscription,
    delivery: Annotated[str, typer.Argument(help="Id of the delivery.")],
    project: InProject,
    as_json: AsJson = False,
) -> None:
    """Send a delivery again that is Dead or Delivered."""
    client = connect(ctx)
    show_one(client.post(f"{_path(client, project, subscription)}/deliveries/{delivery}/redeliver"), as_json)


@app.command()
def delete(ctx: typer.Context, subscription: Subscription, project: InProject) -> None:
    """Delete a subscription, with what it was told."""
    client = connect(ctx)
    client.delete(_path(client, project, subscription))
    say(f"The subscription {subscription} is deleted.")
