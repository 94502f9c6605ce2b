"""Runs testing functions for the API: on the rows of a request, and on a sample row before one is stored."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from blocks import packages
from blocks.sandbox import run_rows
from blocks.sandbox_replies import RowScore, TestingFailed
from emissary.api import cold_start, undeclared_imports
from emissary.errors import InvalidInput, NotFound, Unavailable
from emissary.judges import AnyFunction, JudgeFunction
from emissary.schemas.testing_functions import TestingRow
from emissary.serving import judging
from emissary.settings import settings
from emissary.store.tables import Engine
from emissary.testing_function_files import TestingFunction, is_trusted

AT_ONCE = 2
SECONDS, ROW_SECONDS = 10.0, 5.0
PATIENCE_SECONDS = 20.0
_slots = asyncio.Semaphore(AT_ONCE)
_installing = asyncio.Semaphore(AT_ONCE)
_FILE = Path(undeclared_imports.__file__)
_IMPORTS = TestingFunction(name=_FILE.stem, content=_FILE.read_text(encoding="utf-8"))


async def run_any(organization_id: str, function: AnyFunction, rows: Sequence[TestingRow]) -> list[RowScore]:
    """What the function says of each row, a judge within the hold of a cold start.

    Raises as `run`, or as `judging.scores`; InvalidInput where the judge's deployment is gone.
    """
    if not isinstance(function, JudgeFunction):
        return await run(function, rows)

    async def ready(seconds: float) -> Engine:
        try:
            return (await cold_start.ready(organization_id, function.judge.deployment_id, seconds)).engine
        except NotFound:
            sentence = f"it is gone; give it another with PUT /v1/testing-functions/{function.name}."
            raise InvalidInput(sentence, code="judge_gone") from None

    return await judging.scores(function, _triples(rows), ready, patience=settings().cold_start_hold)


async def run(function: TestingFunction, rows: Sequence[TestingRow]) -> list[RowScore]:
    """What the function says of each row, within 5 s a row and 10 s over all of them, two requests at a time.

    Raises as `run_rows`, and Unavailable when other requests keep it waiting.
    """
    if function.dependencies and not is_trusted(function.name):
        async with _installing:  # which may take two minutes, and no slot from those that need not
            await packages.installed(function.dependencies)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await _slots.acquire()
    except TimeoutError:
        raise Unavailable(
            f"{AT_ONCE} testing functions are being tried, as many as this API runs at once; try again in a minute.",
            code="busy",
        ) from None
    try:
        return await run_rows(
            function,
            _triples(rows),
            seconds=SECONDS,
            row_seconds=min(ROW_SECONDS, settings().testing_row_seconds),
            isolation=settings().sandbox,
            trusted=is_trusted(function.name),
        )
    finally:
        _slots.release()


def _triples(rows: Sequence[TestingRow]) -> list[tuple[str, str, str]]:
    return [(row.input_text, row.expected_output, row.predicted_output) for row in rows]


async def require_score(function: TestingFunction, sample: TestingRow) -> None:
    """Raises InvalidInput unless the function can be loaded, gives the sample row a finite number, and finds what it
    imports for other rows.
    """
    try:
        (scored,) = await run(function, [sample])
    except TestingFailed as error:
        sentence = str(error)
        raise InvalidInput(f"content: {sentence[0].lower()}{sentence[1:]}") from error
    if scored.error is not None:
        raise InvalidInput(
            f"content: the testing function {function.name!r} gives the sample row no score: {scored.error}. Correct "
            "it, or send a `sample` as it expects."
        )
    looking = _IMPORTS.model_copy(update={"dependencies": function.dependencies})
    whole = TestingRow(input_text=function.content, expected_output="", predicted_output="")
    (missing,) = await run(looking, [whole])
    if missing.score != 0:
        raise InvalidInput(
            f"content: the testing function {function.name!r} cannot import all that it names: "
            f"{missing.error or missing.printed.strip()}; name its package in `dependencies`, or catch the ImportError."
        )
