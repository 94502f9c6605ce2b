"""The options that say when an engine runs."""

from typing import Annotated, Any

import typer

from emissary.cli.exit_codes import WrongUsage

_PANEL = "Schedule"
Timezone = Annotated[str | None, typer.Option(help="IANA timezone, such as Europe/Berlin.", rich_help_panel=_PANEL)]
Start = Annotated[str | None, typer.Option(metavar="HH:MM", help="When the engine starts.", rich_help_panel=_PANEL)]
End = Annotated[str | None, typer.Option(metavar="HH:MM", help="When the engine ends.", rich_help_panel=_PANEL)]
Days = Annotated[list[str] | None, typer.Option(help="Weekday, such as monday; repeat.", rich_help_panel=_PANEL)]


def schedule(timezone: str | None, start: str | None, end: str | None, days: list[str] | None) -> dict[str, Any] | None:
    """The API's schedule; None where none of the options is given. Raises WrongUsage where some are missing."""
    given = {"timezone": timezone, "start_time": start, "end_time": end, "days": days}
    if not any(given.values()):
        return None
    if not all(given.values()):
        raise WrongUsage("A schedule takes all of --timezone, --start, --end and --day.")
    return given
