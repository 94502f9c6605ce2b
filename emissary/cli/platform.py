"""`emissary up`, `emissary worker`, `emissary demo` and `emissary results`."""

import json
import os
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from emissary.cli import models
from emissary.cli.output import say
from emissary.errors import InvalidInput
from emissary.settings import settings


class Pool(StrEnum):
    """The work pools."""

    training = "training"
    engines = "engines"


def up() -> None:
    """Run the whole platform: database, Prefect server, flows, API and worker. Ctrl-C stops all."""
    from emissary.up import running

    with running(settings(), say) as platform:
        typer.echo(f"API      {platform.api_url}   (docs at {platform.api_url}/docs)")
        typer.echo(f"Prefect  {platform.prefect_url}")
        typer.echo(f"API key  {platform.api_key}")
        typer.echo("Ctrl-C stops everything.")
        try:
            while True:
                time.sleep(3600)
        finally:
            say("Stopping.")


def worker(
    pool: Annotated[
        list[Pool] | None,
        typer.Option(help="Work pool to run flows of; may be repeated.", show_default="all"),
    ] = None,
) -> None:
    """Run flows on this machine for a platform elsewhere, until Ctrl-C.

    It reaches the platform by EMISSARY_DATABASE_URL, PREFECT_API_URL, EMISSARY_ARTIFACTS (an s3:// address, or a folder
    that all machines share) and EMISSARY_SIGNING_KEY. On Ctrl-C and SIGTERM its runs save what they have, and another
    worker goes on with them.
    """
    from emissary.up import SAME_BYTES, run_variables

    needed = ("EMISSARY_DATABASE_URL", "PREFECT_API_URL", "EMISSARY_ARTIFACTS", "EMISSARY_SIGNING_KEY")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise InvalidInput(f"{', '.join(missing)}: not set; a worker needs to know where the platform is.")
    # Who calls may know better how threads wait on this machine; but what a job trains is the same on all.
    environment = run_variables(os.environ["PREFECT_API_URL"]) | os.environ | SAME_BYTES
    os.execve(sys.executable, [sys.executable, "-m", "emissary.worker", *(pool or [])], environment)


def demo(
    report: Annotated[Path | None, typer.Option(help="Write the results to this file as JSON.")] = None,
) -> None:
    """Run the main job end to end: upload, train, test, deploy, ask. Starts and stops the platform itself."""
    from emissary import demo as main_job
    from emissary.up import running

    models.pull(main_job.BASE_MODEL)
    with running(settings(), say) as platform:
        found = main_job.run(platform, Console())
    _write(report, asdict(found))


def results(
    report: Annotated[Path | None, typer.Option(help="Write the results to this file as JSON.")] = None,
) -> None:
    """Train on the example of every task type and compare with baselines. Starts and stops the platform itself."""
    from emissary import results as examples
    from emissary.up import running

    for name in examples.BASE_MODELS:
        models.pull(name)
    with running(settings(), say) as platform:
        found = examples.run(platform, Console())
    _write(report, [asdict(result) for result in found])
    examples.check(found)


def _write(report: Path | None, found: Any) -> None:
    if report is not None:
        report.write_text(json.dumps(found, indent=2) + "\n")
        say(f"Report written to {report}")
