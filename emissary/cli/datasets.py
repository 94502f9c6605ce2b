"""`emissary datasets`."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from emissary.cli.connection import AsJson, InProject, connect, path_of, project_path
from emissary.cli.dataset_profile import flattened
from emissary.cli.downloading import Output, download
from emissary.cli.output import clean, messages, say, show_list, show_one
from emissary.client import ApiError, Client
from emissary.data.hub_datasets import export
from emissary.data.rows import OnInvalid, TaskType
from emissary.dataset_upload import upload_dataset
from emissary.errors import InvalidInput

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
    """Show a dataset with what its validation and its profile found."""
    client = connect(ctx)
    found = client.get(_path(client, project, dataset))
    show_one(found if as_json else flattened(found), as_json)


@app.command()
def upload(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="A JSONL, JSON, CSV or Parquet file, packed (.gz, .zst) or not; a folder that the `datasets` library "
            "reads; or the name of a dataset of the Hugging Face hub."
        ),
    ],
    project: InProject,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default the file's.")] = None,
    config: Annotated[str | None, typer.Option(help="Which configuration of a folder or dataset of the hub.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split of a folder or dataset of the hub.")] = None,
    skip_invalid: Annotated[bool, typer.Option("--skip-invalid", help="Leave out rows that cannot be used.")] = False,
    task_type: Annotated[
        TaskType | None, typer.Option(help="What every row must fit; default what most rows fit.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a dataset from a file, a folder or the Hugging Face hub; it is validated row by row.

    A large file goes in parts; interrupted and run again, it goes on from there.
    """
    client = connect(ctx)
    project_id = project_path(client, project).rpartition("/")[2]
    on_invalid: OnInvalid = "skip" if skip_invalid else "refuse"
    try:
        with _file(source, config, split) as file, Progress(console=messages(), transient=True) as bar:
            shown = bar.add_task("", total=None)

            def progress(sent: int, total: int) -> None:
                doing = "Uploading" if sent < total else "Waiting until every row is read:"
                bar.update(shown, completed=sent, total=total, description=f"{doing} {clean(file.name)}")

            made = upload_dataset(client, project_id, file, name, progress, on_invalid=on_invalid, task_type=task_type)
    except ApiError as error:
        _say_problems(error.details.get("problems", []), error.details.get("problem_count", 0))
        raise
    if skip_invalid:
        profile = client.get(f"/v1/projects/{project_id}/datasets/{made['id']}")["profile"]
        _say_problems(profile["problems"], profile["skipped"])
        say(f"{profile['rows']} rows are in the dataset; {profile['skipped']} were left out.")
    show_one(made, as_json)


@contextmanager
def _file(source: str, config: str | None, split: str | None) -> Iterator[Path]:
    """The file to upload: that, or one with the rows of a folder or a dataset of the hub."""
    path = Path(source)
    if path.is_file():
        if config is not None or split is not None:
            raise InvalidInput(f"{path} is a file, which has no configuration and no split; leave these out.")
        yield path
        return
    if not path.is_dir() and not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        raise typer.BadParameter(f"There is no file or folder {clean(source)}.")
    with tempfile.TemporaryDirectory(prefix="emissary-export-") as folder:
        file = Path(folder) / f"{path.resolve().name if path.is_dir() else path.name}.jsonl"
        with messages().status(f"Reading {clean(source)} …"):
            export(source, file, config, split)
        yield file


def _say_problems(problems: list[dict[str, Any]], count: int) -> None:
    for problem in problems:
        say(f"{problem['line']}: {problem['reason']}")
    if count > len(problems):
        say(f"… and {count - len(problems)} more")


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
