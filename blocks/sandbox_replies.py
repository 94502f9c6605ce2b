"""What comes out of the sandbox, taken for hostile: only finite numbers and short texts come through."""

import json
from asyncio.subprocess import Process
from collections.abc import Sequence
from dataclasses import dataclass

from blocks import sandbox_runner
from emissary.errors import InvalidInput

MAX_FAILED_SHARE = 0.1
MAX_REPLY_BYTES = 128 * 1024  # of one line: error, traceback and prints, each character escaped to 12 bytes, fit


@dataclass(frozen=True)
class RowScore:
    """What a testing function said of one row: a finite score, or else the error it ended with and its traceback, where
    the function's own code has one; and what it printed.
    """

    score: float | None
    error: str | None
    printed: str = ""
    traceback: str = ""


class TestingFailed(InvalidInput):
    """A testing function gave no usable scores; `traceback` is that of the first error, empty where it has none."""

    __test__ = False  # pytest takes classes named Test… for tests
    code = "testing_failed"

    def __init__(self, sentence: str, traceback: str = "") -> None:
        super().__init__(sentence)
        self.traceback = traceback


class OutOfTime(TestingFailed):
    """A testing function did not score all rows within its time; `scores` are those that it did, from the first on."""

    def __init__(self, sentence: str, scores: Sequence[RowScore]) -> None:
        super().__init__(sentence)
        self.scores = scores


class ProcessLost(Exception):
    """The process ended, or says what the runner never would; the message is the error of the row that did it."""


def raise_if_many_failed(name: str, scores: Sequence[RowScore], rows: int) -> None:
    """Raises TestingFailed where testing function `name` failed on more than a tenth of its `rows`."""
    failed = [(number, row) for number, row in enumerate(scores, 1) if row.error is not None]
    if len(failed) > MAX_FAILED_SHARE * rows:
        number, first = failed[0]
        called = f"{len(scores)} rows" if len(scores) == rows else f"the first {len(scores)} of {rows} rows"
        raise TestingFailed(
            f"Testing function {name!r} failed on {len(failed)} of {called}, first on row {number}: "
            f"{first.error}. Correct the function.",
            first.traceback,
        )


async def read_loaded(process: Process, name: str) -> None:
    """Wait until the function is loaded. Raises TestingFailed where it cannot be."""
    try:
        loaded = await _reply(process)
    except ProcessLost as lost:
        raise TestingFailed(f"Testing function {name!r} cannot be loaded: {lost}.") from None
    if loaded.get("error") is not None:
        raise TestingFailed(
            f"Testing function {name!r} cannot be loaded: {one_line(str(loaded['error']))}.",
            _lines(str(loaded.get("trace", ""))),
        )


async def read_score(process: Process, token: str) -> RowScore:
    """The score of the row that was sent with `token`, which is the next. Raises ProcessLost."""
    reply = await _reply(process)
    if reply.get("token") != token:
        raise ProcessLost("the function wrote to the sandbox's own pipe")
    score, printed = reply.get("score"), _lines(str(reply.get("stdout", "")))
    if type(score) is float and abs(score) <= sandbox_runner.MAX_SCORE:  # NaN is not
        return RowScore(score, None, printed)
    error, trace = one_line(str(reply.get("error", "no score"))), str(reply.get("trace", ""))
    return RowScore(None, error, printed, _lines(trace, sandbox_runner.MAX_TRACE_CHARS))


async def _reply(process: Process) -> dict[str, object]:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = await process.stdout.readline()
        if line:
            reply = json.loads(line)
            if isinstance(reply, dict):
                return reply
    except (ValueError, RecursionError):  # longer than the limit, or not JSON
        line = b"?"
    if line:
        raise ProcessLost("the function wrote to the sandbox's own pipe")
    stderr = one_line((await process.stderr.read(MAX_REPLY_BYTES)).decode(errors="replace"))
    status = await process.wait()
    raise ProcessLost(
        f"the function ended its process (status {status}): it left, crashed, or used more memory, CPU time or files "
        f"than it may. {stderr}".removesuffix(". ")
    )


def one_line(text: str) -> str:
    """One line of printable text of at most 2,000 characters."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[: sandbox_runner.MAX_ERROR_CHARS]


def _lines(text: str, longest: int = sandbox_runner.MAX_PRINTED_CHARS) -> str:
    """Printable text of at most so many characters, in lines."""
    kept = "".join(character if character.isprintable() or character in "\n\t" else " " for character in text)
    return kept[:longest]
