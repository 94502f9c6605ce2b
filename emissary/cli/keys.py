"""`emissary keys`."""

import asyncio
from typing import Annotated, Any, Literal

import typer

from emissary.cli.connection import AsJson, connect, find
from emissary.cli.exit_codes import WrongUsage
from emissary.cli.output import say, show_list, show_one
from emissary.settings import settings

app = typer.Typer(no_args_is_help=True, help="API keys of the organization; for admins.")
_PATH = "/v1/keys"
Key = Annotated[str, typer.Argument(help="Id or name of the key.")]
Role = Literal["admin", "member", "read-only"]


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the keys, without the keys themselves."""
    fields = ("id", "name", "user", "role", "created_at", "last_used_at", "revoked_at")
    show_list(connect(ctx).get(_PATH), as_json, *fields)


@app.command()
def show(ctx: typer.Context, key: Key, as_json: AsJson = False) -> None:
    """Show a key, without the key itself."""
    show_one(find(connect(ctx).get(_PATH), key, "key"), as_json)


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Annotated[Role, typer.Option(help="What it allows: everything, all but keys, or reading.")] = "member",
    user: Annotated[str | None, typer.Option(help="Whose key it is; default the caller's.")] = None,
    organization: Annotated[
        str | None,
        typer.Option(help="Make the key in the database of this machine, for this organization; asks no API."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key; it is shown once.

    With --organization the key is made in the database of this machine's settings (EMISSARY_DATABASE_URL, or the one
    in EMISSARY_HOME), also while the platform is not running: the first key of a new organization, or a new key where
    all admin keys are lost.
    """
    if organization is None:
        made = connect(ctx).post(_PATH, {"name": name, "role": role} | ({"user": user} if user else {}))
    elif user is None:
        raise WrongUsage("--organization: say with --user whose key it is.")
    else:
        made = asyncio.run(_create_here(organization, user, name, role))
    show_one(made, as_json)
    say("Keep the key now: it is not shown again.")


async def _create_here(organization: str, user: str, name: str, role: Role) -> dict[str, Any]:
    from emissary.store import users
    from emissary.store.database import catalogue_server, dispose, migrate, transaction

    with catalogue_server(settings()) as address:
        settings().database_url = address
        await asyncio.to_thread(migrate, address)
        try:
            async with transaction() as session:
                row, key = await users.create_key(session, user, name, role=role, organization=organization)
        finally:
            await dispose()
    return {"id": row.id, "name": name, "organization": organization, "user": user, "role": role, "key": key}


@app.command()
def delete(ctx: typer.Context, key: Key) -> None:
    """Revoke a key; the organization's last admin key stays."""
    client = connect(ctx)
    found = find([row for row in client.get(_PATH) if row["revoked_at"] is None or row["id"] == key], key, "key")
    client.delete(f"{_PATH}/{found['id']}")
    say(f"The key {key} is revoked.")
