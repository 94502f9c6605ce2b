"""The `emissary` command."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from emissary import base_models, model_files
from emissary.client import Client
from emissary.errors import EmissaryError, NotFound
from emissary.secret_files import first_api_key
from emissary.settings import settings
from emissary.store import users
from emissary.store.database import catalogue_server, dispose, migrate, transaction

app = typer.Typer(
    no_args_is_help=True, help="Fine-tune, test, deploy and call models of your own.", add_completion=False
)
models_app = typer.Typer(no_args_is_help=True, help="Base models.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys.")
jobs_app = typer.Typer(no_args_is_help=True, help="Training jobs.")
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
app.add_typer(jobs_app, name="jobs")
console = Console()
FAILED, NOT_FOUND = 1, 4


@contextmanager
def _sentences() -> Iterator[None]:
    """Errors for people are printed as their sentence, and Ctrl-C or SIGTERM end quietly after the clean-up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except EmissaryError as error:
        console.print(f"[red]{type(error).__name__}:[/red]", str(error), highlight=False)
        raise typer.Exit(NOT_FOUND if isinstance(error, NotFound) or error.status == 404 else FAILED) from error
    except KeyboardInterrupt:
        console.print("Stopped.")
        raise typer.Exit(130) from None


@app.command()
def up() -> None:
    """Run the whole platform: database, Prefect server, flows, API and worker. Ctrl-C stops all."""
    from emissary.up import running

    with _sentences(), running(settings(), console.print) as platform:
        console.print(f"API      {platform.api_url}   (docs at {platform.api_url}/docs)")
        console.print(f"Prefect  {platform.prefect_url}")
        console.print(f"API key  {platform.api_key}")
        console.print("Ctrl-C stops everything.")
        while True:
            time.sleep(3600)


@app.command()
def demo(
    report: Annotated[Path | None, typer.Option(help="Write the results to this file as JSON.")] = None,
) -> None:
    """Run the main job end to end: upload, train, test, deploy, ask. Starts and stops the platform itself."""
    from emissary import demo as main_job
    from emissary.up import running

    with _sentences():
        _pull(main_job.BASE_MODEL)
        with running(settings(), console.print) as platform:
            found = main_job.run(platform, console)
        if report is not None:
            report.write_text(json.dumps(asdict(found), indent=2) + "\n")
            console.print(f"Report written to {report}")


@models_app.command("list")
def models_list() -> None:
    """Base models of the catalogue, and which of them are on this machine."""
    table = Table("name", "type", "tasks", "here")
    for name, entry in base_models.catalogue().items():
        here = "yes" if model_files.local_folder(name, settings()) else ""
        table.add_row(name, entry.type, ", ".join(entry.task_types), here)
    console.print(table)


@models_app.command("pull")
def models_pull(name: str) -> None:
    """Fetch a base model ahead of its first use."""
    with _sentences():
        _pull(name)


def _pull(name: str) -> None:
    if (folder := model_files.local_folder(name, settings())) is None:
        with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console) as bar:
            shown = bar.add_task(f"Fetching {name}", total=None)
            folder = model_files.fetch(
                name,
                settings(),
                lambda step, done, total: bar.update(shown, description=step, completed=done, total=total),
            )
    console.print(f"{name} is in {folder}")


async def _in_catalogue(work: Any) -> Any:
    try:
        async with transaction() as session:
            return await work(session)
    finally:
        await dispose()


def _with_catalogue(work: Any) -> Any:
    """Run `work(session)` on the catalogue, which need not be running."""
    with catalogue_server(settings()) as address:
        settings().database_url = address
        migrate(address)
        return asyncio.run(_in_catalogue(work))


@keys_app.command("create")
def keys_create(
    name: str,
    user: Annotated[str, typer.Option(help="Whose key it is.")] = "admin",
    role: Annotated[users.Role, typer.Option(help="What it allows: everything, all but keys, or reading.")] = "member",
    organization: Annotated[str | None, typer.Option(help="Organization of a new user; unset: `default`.")] = None,
) -> None:
    """Make a key; it is shown once."""
    with _sentences():
        row, key = _with_catalogue(
            lambda session: users.create_key(session, user, name, role=role, organization=organization)
        )
        console.print(f"{row.id}  {key}", soft_wrap=True)


@keys_app.command("list")
def keys_list() -> None:
    """All keys, without the keys themselves."""
    with _sentences():
        table = Table("id", "name", "user", "organization", "role", "created", "last used", "revoked")
        for key, user, organization in _with_catalogue(users.list_keys):
            times = (
                f"{when:%Y-%m-%d %H:%M}" if when else "" for when in (key.created_at, key.last_used_at, key.revoked_at)
            )
            table.add_row(key.id, key.name, user.name, organization.name, key.role, *times)
        console.print(table)


@keys_app.command("revoke")
def keys_revoke(key_id: str) -> None:
    """Make a key invalid."""
    with _sentences():
        _with_catalogue(lambda session: users.revoke_key(session, key_id))
        console.print(f"{key_id} is revoked.")


def _client() -> Client:
    url = os.environ.get("EMISSARY_URL") or settings().api_url
    return Client(url, first_api_key(settings()).get_secret_value())


def _find_job(client: Client, job_id: str) -> tuple[str, dict[str, Any]]:
    """(path, detail) of a job, whichever project it is in."""
    for project in client.get("/v1/projects"):
        for job in client.get(f"/v1/projects/{project['id']}/training-jobs"):
            if job_id in (job["id"], job["name"]):
                path = f"/v1/projects/{project['id']}/training-jobs/{job['id']}"
                return path, client.get(path)
    raise NotFound(f"There is no training job {job_id!r}; `emissary jobs list` shows them.")


@jobs_app.command("list")
def jobs_list() -> None:
    """Training jobs of all projects."""
    with _sentences():
        client, table = _client(), Table("id", "name", "project", "base model", "status", "progress")
        for project in client.get("/v1/projects"):
            for job in client.get(f"/v1/projects/{project['id']}/training-jobs"):
                progress = f"{job['progress']} %"
                table.add_row(job["id"], job["name"], project["name"], job["base_model"], job["status"], progress)
        console.print(table)


@jobs_app.command("show")
def jobs_show(job_id: str) -> None:
    """One job, by id or name, with its checkpoints."""
    with _sentences():
        client = _client()
        path, job = _find_job(client, job_id)
        for name in ("id", "name", "status", "progress", "base_model", "best_checkpoint", "error"):
            console.print(f"{name:16}{job[name]}", highlight=False)
        table = Table("checkpoint", "train loss", "test loss", *job["test_functions"])
        for row in client.get(f"{path}/checkpoints"):
            scores = row["test_results"]["aggregated_test_result"] if row["test_results"] else {}
            cells = (
                row["checkpoint"],
                row["train_loss"],
                row["test_loss"],
                *(scores.get(f) for f in job["test_functions"]),
            )
            table.add_row(*("" if cell is None else str(cell) for cell in cells))
        console.print(table)


@jobs_app.command("watch")
def jobs_watch(job_id: str) -> None:
    """Follow a job to its end; exits with 1 when it does not succeed."""
    with _sentences():
        client = _client()
        path, job = _find_job(client, job_id)
        with Progress(console=console) as bar:
            shown = bar.add_task(job["status"], total=100)
            while True:
                bar.update(shown, completed=job["progress"], description=job["status"])
                if job["status"] in ("Success", "Failed", "TimedOut", "Cancelled"):
                    break
                time.sleep(1)
                job = client.get(path)
        if job["status"] != "Success":
            raise EmissaryError(f"The job ended as {job['status']}: {job['error'] or 'no reason given'}")


@jobs_app.command("cancel")
def jobs_cancel(job_id: str) -> None:
    """Stop a job; complete checkpoints stay."""
    with _sentences():
        client = _client()
        path, _job = _find_job(client, job_id)
        client.post(f"{path}/cancel")
        console.print(f"{job_id} is cancelled.")


if __name__ == "__main__":
    app()
