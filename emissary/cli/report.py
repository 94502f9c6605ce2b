"""`emissary report`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from emissary.cli.connection import InProject, connect, find, project_path
from emissary.cli.jobs import Job
from emissary.cli.output import say
from emissary.errors import EmissaryError


def report(
    ctx: typer.Context,
    job: Job,
    project: InProject,
    out: Annotated[Path | None, typer.Option(help="File to write; default the job's name and `-report.html`.")] = None,
) -> None:
    """Write a page of HTML about a job, to be shared: its data, curves, scores, worst and best test rows, time."""
    # Plots take a second to load, which no other command should wait for.
    from emissary.report.gathering import gather
    from emissary.report.page import page

    client = connect(ctx)
    path = project_path(client, project)
    found = find(client.get(f"{path}/training-jobs"), job, "training job")
    text = page(gather(client, path.rpartition("/")[2], found["id"]), time.time())
    target = out or Path(f"{found['name']}-report.html")
    try:
        # Of a character that UTF-8 does not have, half of another, its escape is written.
        target.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise EmissaryError(f"{target} cannot be written: {error.strerror}. Name another file with --out.") from error
    say(f"Report written to {target}")
