"""The `emissary` command: one file per resource, put together here."""

import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from emissary.cli import (
    chat,
    checkpoints,
    datasets,
    deployments,
    engines,
    jobs,
    keys,
    models,
    pipelines,
    platform,
    projects,
    report,
    subscriptions,
    testing_functions,
    traffic,
    webhooks,
)
from emissary.cli.connection import Connection
from emissary.cli.exit_codes import exit_code
from emissary.cli.output import complain
from emissary.errors import EmissaryError

_EPILOG = """\
**Examples**

- `emissary up`
- `emissary projects create support`, then `export EMISSARY_PROJECT=support`
- `emissary datasets upload tickets.jsonl`
- `emissary jobs create --base-model SmolLM2-135M-Instruct --train-dataset tickets --test-split 20 --name triage`
- `emissary jobs watch triage`
- `emissary report triage`
- `emissary deployments create --job triage --checkpoint best --name triage`
- `emissary chat triage "Where is my invoice?"`
- `emissary jobs list --json | jq -r '.[].id'`

**Exit codes:** 0 fine, 1 failure, 2 wrong usage, 3 not found, 130 stopped by Ctrl-C.
Results go to stdout, messages to stderr. Things are named by their id, or by a name that only one of them has.
"""
TRAIN, SERVE, PLATFORM = "Data and training", "Serving", "Platform"


class _Root(TyperGroup):
    """Has every command end with its exit code, and with a sentence where it fails."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            return super().invoke(ctx)
        except EmissaryError as error:
            complain(str(error))
            raise typer.Exit(exit_code(error)) from error


app = typer.Typer(
    cls=_Root,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    epilog=_EPILOG,
)


@app.callback()
def main(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="EMISSARY_URL", help="Where the API is; default: this machine's platform.", show_default=False
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="EMISSARY_API_KEY", help="The key; default: the one in $EMISSARY_HOME/api-key.", show_default=False
        ),
    ] = None,
) -> None:
    """Fine-tune, test, deploy and call models of your own."""
    ctx.obj = Connection(url, api_key)


app.command(rich_help_panel=PLATFORM)(platform.up)
app.command(rich_help_panel=PLATFORM)(platform.worker)
app.command(rich_help_panel=PLATFORM)(platform.demo)
app.command(rich_help_panel=PLATFORM)(platform.results)
for panel, name, commands in (
    (TRAIN, "projects", projects.app),
    (TRAIN, "datasets", datasets.app),
    (TRAIN, "testing-functions", testing_functions.app),
    (TRAIN, "jobs", jobs.app),
    (TRAIN, "checkpoints", checkpoints.app),
    (TRAIN, "pipelines", pipelines.app),
    (TRAIN, "webhooks", webhooks.app),
    (PLATFORM, "subscriptions", subscriptions.app),
    (SERVE, "engines", engines.app),
    (SERVE, "deployments", deployments.app),
    (SERVE, "traffic", traffic.app),
    (PLATFORM, "models", models.app),
    (PLATFORM, "keys", keys.app),
):
    app.add_typer(commands, name=name, rich_help_panel=panel)
app.command(rich_help_panel=TRAIN)(report.report)
app.command(rich_help_panel=SERVE)(chat.chat)
