"""`emissary webhooks`."""

from typing import Annotated, Literal

import typer

from emissary.cli.connection import AsJson, InProject, connect, path_of, project_path
from emissary.cli.output import say, show_list, show_one
from emissary.client import Client

app = typer.Typer(no_args_is_help=True, help="Addresses at which other systems start a pipeline.")
Pipeline = Annotated[str, typer.Argument(help="Id or name of the pipeline.")]
Webhook = Annotated[str, typer.Argument(help="Id or name of the webhook.")]
Scheme = Literal["standard", "github", "token"]
_KEEP = "Keep the secret now: it is not shown again."


def _collection(client: Client, project: str, pipeline: str) -> str:
    return f"{path_of(client, f'{project_path(client, project)}/pipelines', pipeline, 'pipeline')}/webhooks"


def _path(client: Client, project: str, pipeline: str, webhook: str) -> str:
    return path_of(client, _collection(client, project, pipeline), webhook, "webhook")


@app.command("list")
def list_(ctx: typer.Context, pipeline: Pipeline, project: InProject, as_json: AsJson = False) -> None:
    """List a pipeline's webhooks, the newest first."""
    client = connect(ctx)
    rows = client.get(_collection(client, project, pipeline))
    show_list(rows, as_json, "id", "name", "scheme", "url", "previous_until", "created_at")


@app.command()
def show(ctx: typer.Context, pipeline: Pipeline, webhook: Webhook, project: InProject, as_json: AsJson = False) -> None:
    """Show a webhook, without its secret."""
    client = connect(ctx)
    show_one(client.get(_path(client, project, pipeline, webhook)), as_json)


@app.command()
def create(
    ctx: typer.Context,
    pipeline: Pipeline,
    name: Annotated[str, typer.Argument(help="Who sends.")],
    project: InProject,
    scheme: Annotated[Scheme, typer.Option(help="How the sender shows that it has the secret.")] = "standard",
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Id of a dataset to train on, or a template such as {{ payload.dataset_id }}."),
    ] = None,
    object_: Annotated[
        list[str] | None,
        typer.Option("--object", help="The same with the key of an object, where the pipeline's source is s3."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a webhook; its secret is shown once."""
    client = connect(ctx)
    parameters = {key: templates for key, templates in (("datasets", dataset), ("objects", object_)) if templates}
    body = {"name": name, "scheme": scheme} | ({"parameters": parameters} if parameters else {})
    show_one(client.post(_collection(client, project, pipeline), body), as_json)
    say(_KEEP)


@app.command()
def rotate(
    ctx: typer.Context,
    pipeline: Pipeline,
    webhook: Webhook,
    project: InProject,
    overlap_seconds: Annotated[int, typer.Option(help="How long the secret before works on.")] = 86400,
    as_json: AsJson = False,
) -> None:
    """Give a webhook a new secret, which is shown once."""
    client = connect(ctx)
    path = _path(client, project, pipeline, webhook)
    show_one(client.post(f"{path}/rotate", {"overlap_seconds": overlap_seconds}), as_json)
    say(_KEEP)


@app.command()
def deliveries(
    ctx: typer.Context, pipeline: Pipeline, webhook: Webhook, project: InProject, as_json: AsJson = False
) -> None:
    """List what began runs in the last thirty days, the newest first."""
    client = connect(ctx)
    rows = client.get(f"{_path(client, project, pipeline, webhook)}/deliveries")
    show_list(rows, as_json, "id", "delivery_id", "pipeline_run_id", "created_at")


@app.command()
def delete(ctx: typer.Context, pipeline: Pipeline, webhook: Webhook, project: InProject) -> None:
    """Delete a webhook; the runs that it began stay."""
    client = connect(ctx)
    client.delete(_path(client, project, pipeline, webhook))
    say(f"The webhook {webhook} is deleted.")
