"""`emissary models`."""

from typing import Annotated
from urllib.parse import quote

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from emissary.cli.connection import AsJson, connect
from emissary.cli.output import messages, say, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Base models.")
Name = Annotated[str, typer.Argument(help="Name of the base model.")]


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the base models."""
    show_list(connect(ctx).get("/v1/models"), as_json, "name", "type", "task_types")


@app.command()
def show(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a base model with its default hyperparameters."""
    show_one(connect(ctx).get(f"/v1/models/{quote(name, safe='')}"), as_json)


@app.command()
def pull(name: Name) -> None:
    """Fetch a base model to this machine ahead of its first use."""
    from emissary import model_files
    from emissary.settings import settings

    if (folder := model_files.local_folder(name, settings())) is None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
        with Progress(*columns, console=messages()) as bar:
            shown = bar.add_task(f"Fetching {name}", total=None)
            folder = model_files.fetch(
                name,
                settings(),
                lambda step, done, total: bar.update(shown, description=step, completed=done, total=total),
            )
    say(f"{name} is in {folder}")
