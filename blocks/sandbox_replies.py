"""What comes out of the sandbox, taken for hostile: only finite numbers and short texts come through."""

import json
import math
from asyncio.subprocess import Process
from dataclasses import dataclass

from blocks import sandbox_runner
from emissary.errors import InvalidInput

MAX_REPLY_BYTES = 64 * 1024  # of one line: an error and prints of 2,000 characters each, escaped to 12 bytes, fit


class TestingFailed(InvalidInput):
    """A testing function gave no usable scores."""

    __test__ = False  # pytest takes classes named Test… for tests
    code = "testing_failed"


@dataclass(frozen=True)
class RowScore:
    """What a testing function said of one row: a finite score, or else the error it ended with; what it printed."""

    score: float | None
    error: str | None
    printed: str = ""


async def read_scores(process: Process, name: str, count: int, scores: list[RowScore]) -> None:
    """Append the scores of `count` rows to `scores`, each when it comes.

    Raises TestingFailed where testing function `name` cannot be loaded, ends the process or writes what is no reply.
    """
    loaded = await _reply(process, name, "it was loaded")
    if loaded.get("error") is not None:
        raise TestingFailed(f"Testing function {name!r} cannot be loaded: {one_line(str(loaded['error']))}.")
    for number in range(1, count + 1):
        reply = await _reply(process, name, f"it scored row {number}")
        score, printed = reply.get("score"), _lines(str(reply.get("stdout", "")))
        if type(score) is float and math.isfinite(score):
            scores.append(RowScore(score, None, printed))
        else:
            scores.append(RowScore(None, one_line(str(reply.get("error", "no score"))), printed))


async def _reply(process: Process, name: str, before: str) -> dict[str, object]:
    """The next reply; TestingFailed where there is none or it is no reply."""
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
        raise TestingFailed(f"Testing function {name!r} wrote to the sandbox's own pipe before {before}.")
    stderr = one_line((await process.stderr.read(MAX_REPLY_BYTES)).decode(errors="replace"))
    status = await process.wait()
    raise TestingFailed(
        f"Testing function {name!r} ended its process (status {status}) before {before}: it left, crashed or ran "
        f"out of memory. {stderr}".strip()
    )


def one_line(text: str) -> str:
    """One line of printable text of at most 2,000 characters."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[: sandbox_runner.MAX_ERROR_CHARS]


def _lines(text: str) -> str:
    """Printable text of at most 2,000 characters, in lines."""
    kept = "".join(character if character.isprintable() or character in "\n\t" else " " for character in text)
    return kept[: sandbox_runner.MAX_PRINTED_CHARS]
