"""`emissary datasets`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from emissary.cli.connection import AsJson, InProject, connect, path_of, project_path
from emissary.cli.downloading import Output, download
from emissary.cli.output import clean, messages, say, show_list, show_one
from emissary.client import Client
from emissary.dataset_upload import upload_dataset

app = typer.Typer(no_args_is_help=True, help="Files of examples to train and test on.")
Dataset = Annotated[str, typer.Argument(help="Id or name of the dataset.")]


def _path(client: Client, project: str, dataset: str) -> str:
    return path_of(client, f"{project_path(client, project)}/datasets", dataset, "dataset")


@app.command("list")
def list_(ctx: typer.Context, project: InProject, as_json: AsJson = False) -> None:
    """List a project's datasets, the newest first."""
    client = connect(ctx)
    show_list(client.get(f"{project_path(client, project)}/datasets"), as_json, "id", "name", "created_at")


@app.command()
def show(ctx: typer.Context, dataset: Dataset, project: InProject, as_json: AsJson = False) -> None:
    """Show a dataset with what its validation found."""
    client = connect(ctx)
    show_one(client.get(_path(client, project, dataset)), as_json)


@app.command()
def upload(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSONL, JSON, CSV or Parquet file.")],
    project: InProject,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default the file's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a dataset from a file, which is validated row by row.

    A large file goes in parts; interrupted and run again, it goes on from there.
    """
    client = connect(ctx)
    project_id = project_path(client, project).rpartition("/")[2]
    with Progress(console=messages(), transient=True) as bar:
        shown = bar.add_task("", total=None)

        def progress(sent: int, total: int) -> None:
            doing = "Uploading" if sent < total else "Waiting until every row is read:"
            bar.update(shown, completed=sent, total=total, description=f"{doing} {clean(file.name)}")

        made = upload_dataset(client, project_id, file, name, progress)
    show_one(made, as_json)


@app.command("download")
def download_(ctx: typer.Context, dataset: Dataset, project: InProject, output: Output = None) -> None:
    """Save a dataset's file as it was uploaded."""
    client = connect(ctx)
    download(client.get(_path(client, project, dataset))["dataset_download_url"], output)


@app.command()
def delete(ctx: typer.Context, dataset: Dataset, project: InProject) -> None:
    """Delete a dataset that no training job was made from."""
    client = connect(ctx)
    client.delete(_path(client, project, dataset))
    say(f"The dataset {dataset} is deleted.")
