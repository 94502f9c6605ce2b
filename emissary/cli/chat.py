"""`emissary chat`."""

import sys
from typing import Annotated, Any

import typer

from emissary.cli.connection import AsJson, connect
from emissary.cli.output import clean, show_json

PATH = "/v1/chat/completions"


def chat(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name or id of a deployment, or the name of a base model.")],
    text: Annotated[str, typer.Argument(help="What to say.")],
    system: Annotated[str | None, typer.Option(help="The system message before it.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always gives the same answer; default 1.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say something to a model and print its answer as it comes."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    body: dict[str, Any] = {"model": model, "messages": [*messages, {"role": "user", "content": text}]}
    body |= {"temperature": temperature, "max_tokens": max_tokens}
    client = connect(ctx)
    if as_json:
        show_json(client.post(PATH, body))
        return
    for event in client.stream(PATH, body | {"stream": True}):
        for choice in event["choices"]:
            sys.stdout.write(clean(choice["delta"].get("content") or ""))
            sys.stdout.flush()
    sys.stdout.write("\n")
