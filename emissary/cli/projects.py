"""`emissary projects`."""

from typing import Annotated

import typer

from emissary.cli.connection import AsJson, connect, project_path
from emissary.cli.output import say, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Workspaces of datasets, training jobs and deployments.")
Project = Annotated[str, typer.Argument(help="Id or name of the project.")]


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the projects, the newest first."""
    show_list(connect(ctx).get("/v1/projects"), as_json, "id", "name")


@app.command()
def show(ctx: typer.Context, project: Project, as_json: AsJson = False) -> None:
    """Show a project with what is in it."""
    client = connect(ctx)
    show_one(client.get(project_path(client, project)), as_json)


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Name of the project; one is made up without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a project."""
    show_one(connect(ctx).post("/v1/projects", {"name": name}), as_json)


@app.command()
def delete(ctx: typer.Context, project: Project) -> None:
    """Delete a project with everything in it; what runs is cancelled first."""
    client = connect(ctx)
    client.delete(project_path(client, project))
    say(f"The project {project} is deleted.")
