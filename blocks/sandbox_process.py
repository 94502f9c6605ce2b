"""The process that a testing function runs in: its limits, how it is started without isolation, told, and ended."""

import asyncio
import json
import math
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from blocks import sandbox_runner
from blocks.sandbox_replies import MAX_REPLY_BYTES
from emissary.testing_function_files import TestingFunction

RUNNER = Path(sandbox_runner.__file__).resolve()
TMP_BYTES = 64 * 2**20
TMP_FILES = 10_000
MEMORY_BYTES = 4 * 2**30
THREADS = 64

# Libraries that start a thread per core would soon be at the limit of threads.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

_SENT_AT_ONCE = 64 * 2**10


def python() -> list[str]:
    """The interpreter behind the virtual environment: isolated, without site-packages."""
    return [str(Path(sys.executable).resolve()), "-I", "-S"]


async def start_plain(folder: str) -> Process:
    """The runner in a plain process that works in `folder`, waiting for its header."""
    return await asyncio.create_subprocess_exec(
        *python(),
        str(RUNNER),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=ENVIRONMENT,
        cwd=folder,
        start_new_session=True,
        limit=MAX_REPLY_BYTES,
    )


def header(
    function: TestingFunction, seconds: float, *, libraries: str | None, isolated: bool, user: int | None
) -> dict[str, object]:
    """What the runner is told first. Twice `seconds` is its CPU time; `user` is the uid to take, None to stay."""
    limits = {
        "RLIMIT_AS": MEMORY_BYTES,
        "RLIMIT_FSIZE": TMP_BYTES,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": math.ceil(2 * seconds),
    }
    if isolated:
        # Threads are counted, and per user namespace: outside one, the user's other processes would be counted too.
        limits["RLIMIT_NPROC"] = THREADS
    elif sys.platform != "linux":
        limits = {}  # macOS refuses some of them
    return {
        "parent": None if isolated else os.getpid(),  # bubblewrap sees to it in a sandbox
        "name": function.name,
        "source": function.content,
        "user": user,
        "limits": limits,
        "packages": libraries,
    }


async def send(process: Process, messages: Iterable[object]) -> None:
    """Write the messages, in time with the process. Where it has ended, the reader of its replies will tell."""
    assert process.stdin is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        pending = b""
        for message in messages:
            pending += json.dumps(message).encode() + b"\n"
            if len(pending) > _SENT_AT_ONCE:
                process.stdin.write(pending)
                await process.stdin.drain()
                pending = b""
        process.stdin.write(pending)
        await process.stdin.drain()


async def end(process: Process) -> None:
    """Kill the process and its group; bubblewrap's end is the end of everything in its sandbox."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # asyncio takes a process for ended once its pipes are read empty. Outside a sandbox, one that left the
    # group may hold them open for ever.
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            await process.communicate()
