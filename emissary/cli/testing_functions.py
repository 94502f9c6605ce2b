"""`emissary testing-functions`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from emissary.cli.connection import AsJson, connect
from emissary.cli.exit_codes import WrongUsage
from emissary.cli.output import clean, say, show_json, show_list, show_one
from emissary.errors import NotFound

app = typer.Typer(no_args_is_help=True, help="Functions that score a model's answers: Python, or judges.")
_PATH = "/v1/testing-functions"
Name = Annotated[str, typer.Argument(help="Name of the function.")]
Source = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Python file named like its function.")]
Dependencies = Annotated[
    list[str] | None, typer.Option("--dependency", "-d", help="pip requirement of the function; repeat.")
]


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the functions that ship and those that were added."""
    show_list(connect(ctx).get(_PATH), as_json, "name", "dependencies")


@app.command()
def show(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Print a function's source, or what a judge asks."""
    for function in connect(ctx).get(_PATH):
        if function["name"] == name:
            if as_json:
                show_json(function)
            elif "judge" in function:
                show_one(function["judge"], as_json)
            else:
                sys.stdout.write(clean(function["content"]))
            return
    raise NotFound(f"There is no testing function {name!r}.")


def _body(file: Path, dependencies: list[str] | None) -> dict[str, Any]:
    return {"name": file.stem, "content": file.read_text(encoding="utf-8"), "dependencies": dependencies or []}


@app.command()
def add(ctx: typer.Context, file: Source, dependency: Dependencies = None, as_json: AsJson = False) -> None:
    """Add a function from a file of the function's name, after a dry run in the sandbox."""
    made = connect(ctx).post(_PATH, _body(file, dependency))
    show_one(made, as_json)


@app.command()
def update(ctx: typer.Context, file: Source, dependency: Dependencies = None, as_json: AsJson = False) -> None:
    """Replace a function by the one in a file of its name."""
    made = connect(ctx).call("PUT", f"{_PATH}/{file.stem}", json=_body(file, dependency))
    show_one(made, as_json)


Deployment = Annotated[
    str, typer.Option("--deployment", help="Name or id of the deployment, for classification or regression.")
]
Label = Annotated[
    str | None, typer.Option("--label", help="Of a classification: the label whose probability is the score.")
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input", help="What it reads: text with {input_text}, {expected_output}, {predicted_output}. [the last]"
    ),
]


def _judge(deployment: str, label: str | None, template: str | None) -> dict[str, Any]:
    judge = {"deployment_id": deployment, "label": label, "input": template}
    return {"judge": {name: value for name, value in judge.items() if value is not None}}


@app.command("add-judge")
def add_judge(
    ctx: typer.Context,
    name: Name,
    deployment: Deployment,
    label: Label = None,
    template: Input = None,
    as_json: AsJson = False,
) -> None:
    """Add a function that has a deployment score the answers."""
    made = connect(ctx).post(_PATH, {"name": name} | _judge(deployment, label, template))
    show_one(made, as_json)


@app.command("update-judge")
def update_judge(
    ctx: typer.Context,
    name: Name,
    deployment: Deployment,
    label: Label = None,
    template: Input = None,
    as_json: AsJson = False,
) -> None:
    """Replace a function by one that has a deployment score the answers."""
    made = connect(ctx).call("PUT", f"{_PATH}/{name}", json=_judge(deployment, label, template))
    show_one(made, as_json)


@app.command("try")
def try_(
    ctx: typer.Context,
    name: Name,
    rows: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="JSONL file with input_text, expected_output and predicted_output in every line.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Run a function on rows of a file and show its scores, and the tracebacks of rows on which it fails."""
    given = []
    for number, line in enumerate(rows.read_bytes().splitlines(), 1):
        try:
            given += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise WrongUsage(f"{rows} is not JSONL: {error}, in line {number} of the file.") from error
    tried = connect(ctx).post(f"{_PATH}/{name}/try", {"rows": given})
    show_list(tried, as_json, "score", "error", "stdout")
    for row in [] if as_json else tried:
        for traced in (row["traceback"] or "").splitlines():
            say(traced)


@app.command()
def delete(ctx: typer.Context, name: Name) -> None:
    """Delete a function that was added."""
    connect(ctx).delete(f"{_PATH}/{name}")
    say(f"The testing function {name} is deleted.")
