"""The API that commands call, and how they name what is there: by id, or by a name that only one thing has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from emissary.cli.exit_codes import WrongUsage
from emissary.client import Client
from emissary.errors import NotFound
from emissary.secret_files import known_api_key
from emissary.settings import settings

InProject = Annotated[str, typer.Option("--project", envvar="EMISSARY_PROJECT", help="Id or name of the project.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]


@dataclass(frozen=True)
class Connection:
    """Where the API is and the key to it, as far as the command line says."""

    url: str | None
    api_key: str | None


def connect(ctx: typer.Context) -> Client:
    """A client of the API that the command line, the environment or this machine's settings name."""
    chosen: Connection = ctx.obj
    key = chosen.api_key or known_api_key(settings()).get_secret_value()
    return Client(chosen.url or settings().api_url, key)


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """Those fields of a request's body that the command line gave a value."""
    return {name: value for name, value in fields.items() if value is not None}


def find(rows: Sequence[dict[str, Any]], reference: str, what: str) -> dict[str, Any]:
    """The row whose id or name is `reference`. Raises NotFound, or WrongUsage where several have that name."""
    found = [row for row in rows if row["id"] == reference] or [row for row in rows if row["name"] == reference]
    if not found:
        raise NotFound(f"There is no {what} {reference!r} here.")
    if len(found) > 1:
        ids = ", ".join(row["id"] for row in found)
        raise WrongUsage(f"{len(found)} {what}s are named {reference!r}; give the id of one: {ids}.")
    return found[0]


def path_of(client: Client, collection: str, reference: str, what: str) -> str:
    """The API's path of the thing that `reference` names in the list at `collection`."""
    return f"{collection}/{find(client.get(collection), reference, what)['id']}"


def project_path(client: Client, reference: str) -> str:
    """The API's path of the project that `reference` names."""
    return path_of(client, "/v1/projects", reference, "project")
