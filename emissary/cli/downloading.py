"""Saves what a signed link gives."""

from email.message import Message
from pathlib import Path, PurePath
from typing import Annotated

import httpx
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from emissary.cli.output import clean, messages, say
from emissary.client import opened
from emissary.errors import EmissaryError

Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write; default the name that the API gives it.")
]


def download(url: str, output: Path | None) -> None:
    """Save the file behind a signed link; it appears under its name once it is whole.

    Raises EmissaryError when the file exists already or cannot be fetched.
    """
    with opened(url) as response:
        target = output or Path(_suggested_name(response))
        if target.exists():
            raise EmissaryError(f"{target} exists already; name another file with --output.")
        _write(response, target)
    say(f"Saved {target}")


def _suggested_name(response: httpx.Response) -> str:
    message = Message()
    message["Content-Disposition"] = response.headers.get("content-disposition", "")
    # A name only: what the server says may not lead to another folder.
    return clean(PurePath(message.get_filename() or "").name) or "download"


def _write(response: httpx.Response, target: Path) -> None:
    draft = target.with_name(f".{target.name}.part")
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    length = response.headers.get("content-length")
    try:
        with draft.open("wb") as file, Progress(*columns, console=messages(), transient=True) as bar:
            shown = bar.add_task("Downloading", total=int(length) if length else None)
            for part in response.iter_bytes(1024 * 1024):
                file.write(part)
                bar.advance(shown, len(part))
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
