"""Runs testing functions, which are somebody's code, away from everything that is worth stealing.

The one way to run them, for tests of checkpoints, for rewards and for trying them out. One process scores many rows; it
is isolated by `blocks/bubblewrap.py`. A row on which the function fails, hangs or ends its process is that row's
failure: the process is started again for the rows behind it. Where somebody outside has killed the sandbox, which
nothing in it can, the row is scored again. A function that runs the answers as code has a process for
each, so that no answer reaches what another one is scored by; whatever it does to its process, it scores 0.
"""

import asyncio
import logging
import math
import secrets
import signal
import sysconfig
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from prefect import get_run_logger
from prefect.exceptions import MissingContextError

from blocks import bubblewrap, packages
from blocks.sandbox_process import end, header, send, start_plain
from blocks.sandbox_replies import (
    MAX_FAILED_SHARE,
    OutOfTime,
    ProcessLost,
    RowScore,
    TestingFailed,
    raise_if_many_failed,
    read_loaded,
    read_score,
)
from emissary.errors import Unavailable
from emissary.testing_function_files import TestingFunction

Row = tuple[str, str, str]
"""(input, expected output, predicted output)"""
_MarkedRow = tuple[str, str, str, str]
"""(token, input, expected output, predicted output)"""
ROW_SECONDS = 10.0
_MOST_KILLS = 3
"""From outside, of one sandbox; whoever kills more of them means it."""

log = logging.getLogger(__name__)


async def score_rows(
    function: TestingFunction,
    rows: Sequence[Row],
    *,
    seconds: float,
    row_seconds: float = ROW_SECONDS,
    isolation: Literal["bwrap", "none"],
    trusted: bool,
) -> list[RowScore]:
    """As `run_rows`; raises TestingFailed too where the function fails on more than a tenth of the rows.

    Where its process is lost after that, or its time is over, the rows behind are not called any more.
    """
    late: OutOfTime | None = None
    sandbox = Sandbox(function, seconds=seconds, row_seconds=row_seconds, isolation=isolation, trusted=trusted)
    async with sandbox:
        try:
            scores = await sandbox.run(rows, tolerated=MAX_FAILED_SHARE)
        except OutOfTime as error:
            late, scores = error, list(error.scores)
    raise_if_many_failed(function.name, scores, len(rows))
    if late is not None:
        raise late
    return scores


async def run_rows(
    function: TestingFunction,
    rows: Sequence[Row],
    *,
    seconds: float,
    row_seconds: float = ROW_SECONDS,
    isolation: Literal["bwrap", "none"],
    trusted: bool,
) -> list[RowScore]:
    """Call the function on `rows`, in a process without credentials: each row's score, or its error.

    `seconds` is the time limit over all rows, starts of the process included, `row_seconds` that of a row; the time
    of rows that hang, up to a tenth of them, is not counted in the first. Dependencies are installed before.
    `trusted` says that the function ships with the platform: it takes its dependencies from there, and where the
    machine refuses namespaces it runs in a plain process; any other is refused.

    Raises InvalidInput where dependencies cannot be installed, TestingFailed where the function cannot be loaded,
    OutOfTime, and Unavailable where it cannot be isolated.
    """
    sandbox = Sandbox(function, seconds=seconds, row_seconds=row_seconds, isolation=isolation, trusted=trusted)
    async with sandbox:
        return await sandbox.run(rows)


class Sandbox:
    """A testing function in a process that is kept between calls of `run`. Arguments are those of `run_rows`; leaving
    the context ends the process.
    """

    def __init__(
        self,
        function: TestingFunction,
        *,
        seconds: float,
        row_seconds: float = ROW_SECONDS,
        isolation: Literal["bwrap", "none"],
        trusted: bool,
    ) -> None:
        self._function, self._isolation, self._trusted = function, isolation, trusted
        self._seconds, self._row_seconds = seconds, row_seconds
        self._isolated: bool | None = None  # not known before the first call
        self._libraries: Path | None = None
        self._process: Process | None = None
        self._kills = 0
        self._busy = 0.0  # seconds that this process was scoring
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # of a plain process

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the process."""
        await self._end()
        if self._folder is not None:
            self._folder.cleanup()

    async def run(self, rows: Sequence[Row], *, tolerated: float = 1.0) -> list[RowScore]:
        """Each row's score, or its error, within the time limit over all. Raises as `run_rows`.

        Where the process is lost and more than the share `tolerated` of the rows have failed, it is not started again:
        the scores are those up to there.
        """
        if not rows:
            return []
        await self._prepare()
        if self._isolation == "none":
            _run_log().warning(
                "EMISSARY_SANDBOX=none: testing function %r runs without isolation, and can read this machine's "
                "files and use its network.",
                self._function.name,
            )
        # So that a reply in advance, or for another row, is known as one. No more: the tokens of rows that wait are in
        # the function's process, which could find them there.
        marked = [(secrets.token_hex(8), *row) for row in rows]
        scores: list[RowScore] = []
        started = time.monotonic()
        # Rows that hang have their own limit: as many as may fail in a test leave the others their time.
        self._excused = math.ceil(MAX_FAILED_SHARE * len(rows))
        try:
            async with asyncio.timeout(self._seconds) as self._limit:
                while len(scores) < len(rows):
                    await self._advance(marked, scores)
                    if sum(row.error is not None for row in scores) > tolerated * len(rows):
                        break
        except TimeoutError:
            await self._end()
            raise OutOfTime(
                f"Testing function {self._function.name!r} scored {len(scores)} of {len(rows)} rows within "
                f"{self._seconds:g} s; make it faster (in training jobs EMISSARY_TESTING_SECONDS is the limit).",
                scores,
            ) from None
        except BaseException:
            await self._end()
            raise
        self._busy += time.monotonic() - started
        return scores

    async def _prepare(self) -> None:
        """Find out how to isolate, and install dependencies, on the first call; end a process that is used up."""
        if self._isolated is None:
            self._isolated = await asyncio.to_thread(_isolates, self._function.name, self._isolation, self._trusted)
            self._libraries = await _libraries(self._function, self._trusted)
        await asyncio.sleep(0)  # the event loop may not have run since the last call
        # Its CPU time is limited to twice the seconds of a call, and the next may take them all.
        dead = self._process is not None and self._process.returncode is not None
        if dead or self._busy > self._seconds:
            await self._end()

    async def _advance(self, rows: Sequence[_MarkedRow], scores: list[RowScore]) -> None:
        """Score the rows behind `scores`, as many as a process may, until it is lost, which fails the row it was at."""
        process = self._process or await self._start()
        first, alone = len(scores), self._function.runs_answers
        last = first + 1 if alone else len(rows)
        sending = asyncio.create_task(send(process, (rows[at] for at in range(first, last))))
        try:
            while len(scores) < last:
                try:
                    async with asyncio.timeout(self._row_seconds):
                        score = await read_score(process, rows[len(scores)][0])
                    # More than a share was written by the answer itself.
                    forged = alone and score.score is not None and not 0 <= score.score <= 1
                    scores.append(RowScore(0.0, None) if forged else score)
                except TimeoutError:
                    self._excuse()
                    raise ProcessLost(f"the function did not score the row within {self._row_seconds:g} s") from None
        except ProcessLost as lost:
            if not self._was_killed(process):
                scores.append(RowScore(0.0, None) if alone else RowScore(None, str(lost)))
            await self._end()
        finally:
            sending.cancel()
        if alone:
            await self._end()

    def _excuse(self) -> None:
        """Give the rows behind one that hung the time that it took, where not too many have."""
        ends = self._limit.when()
        if self._excused and ends is not None:
            self._excused -= 1
            self._limit.reschedule(ends + self._row_seconds)

    async def _start(self) -> Process:
        """A process that has loaded the function."""
        user = None
        if self._isolated:
            seen_at = None if self._libraries is None else bubblewrap.LIBRARIES
            try:
                self._process, user = await bubblewrap.start(self._libraries)
            except RuntimeError as error:
                raise Unavailable(
                    f"Testing function {self._function.name!r} was not run: {error}.", code="sandbox_unavailable"
                ) from error
        else:
            seen_at = None if self._libraries is None else str(self._libraries)
            self._folder = self._folder or tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            self._process = await start_plain(self._folder.name)
        self._busy = 0.0
        told = header(self._function, self._seconds, libraries=seen_at, isolated=bool(self._isolated), user=user)
        await send(self._process, [told])
        try:
            await read_loaded(self._process, self._function.name)
        except TestingFailed:
            if self._was_killed(self._process):
                return await self._start()
            raise
        return self._process

    def _was_killed(self, process: Process) -> bool:
        """Whether bubblewrap itself was killed, whose end is that of everything in the sandbox."""
        if not self._isolated or process.returncode != -signal.SIGKILL or self._kills == _MOST_KILLS:
            return False
        self._kills += 1
        _run_log().warning("The sandbox of %r was killed from outside; going on in a new one", self._function.name)
        return True

    async def _end(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            await end(process)


def _isolates(name: str, isolation: Literal["bwrap", "none"], trusted: bool) -> bool:
    """Whether testing function `name` is isolated; raises Unavailable where it must be and cannot."""
    if isolation == "none":
        return False
    refused = bubblewrap.refusal()
    if refused is None:
        return True
    if not trusted:
        raise Unavailable(
            f"Testing function {name!r} was not run, for this machine does not let bubblewrap isolate it "
            f"({refused}). {bubblewrap.what_to_configure()}, or set EMISSARY_SANDBOX=none to run testing "
            "functions without isolation.",
            code="sandbox_unavailable",
        )
    log.warning("Testing function %r ships, and runs in a plain process: bubblewrap: %s", name, refused)
    return False


def _run_log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The log of the flow run, where there is one."""
    try:
        return get_run_logger()
    except MissingContextError:
        return log


async def _libraries(function: TestingFunction, trusted: bool) -> Path | None:
    """The folder with the function's dependencies; None where it has none."""
    if not function.dependencies:
        return None
    return Path(sysconfig.get_path("platlib")) if trusted else await packages.installed(function.dependencies)
