"""What a judge says of rows, asked of the engine that serves its deployment."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx

from blocks.sandbox_replies import RowScore
from emissary.errors import EmissaryError, Unavailable
from emissary.judges import Judge, JudgeFunction
from emissary.serving import client as engine_client
from emissary.store.tables import Engine

Row = tuple[str, str, str]
"""(input, expected output, predicted output)"""
Ready = Callable[[float], Awaitable[Engine]]
"""Gives the engine once it serves the deployment, within so many seconds, or raises an error meant for a person."""

_TEXTS_AT_ONCE = 64
"""As many as an engine takes in one forward pass."""
_LONGEST_WAIT_SECONDS = 5.0
_MOST_LOST = 3
"""Answers that an engine may fail to give to the same texts: they may be what ends it."""


async def scores(function: JudgeFunction, rows: Sequence[Row], ready: Ready, *, patience: float) -> list[RowScore]:
    """The judge's score of each row; a row's error where the engine refuses its text, as an empty or too long one.

    A text that several rows share is asked once, so they get the same score. While the engine cannot be reached it is
    tried again for `patience` seconds. Raises Unavailable with a sentence that names judge and deployment when it still
    cannot, and what `ready` raises.
    """
    texts = [function.judge.text(*row) for row in rows]
    found = {text: RowScore(None, error) for text in texts if (error := _unaskable(text)) is not None}
    asked = [text for text in dict.fromkeys(texts) if text not in found]
    for at in range(0, len(asked), _TEXTS_AT_ONCE):
        chunk = asked[at : at + _TEXTS_AT_ONCE]
        found |= zip(chunk, await _ask(function, chunk, ready, patience), strict=True)
    return [found[text] for text in texts]


def _unaskable(text: str) -> str | None:
    """Why no engine can be asked about `text`; None where one can."""
    if not text:
        return "the text that the judge would read is empty"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the text that the judge would read is not valid Unicode"
    return None


async def _ask(function: JudgeFunction, texts: list[str], ready: Ready, patience: float) -> list[RowScore]:
    """The score of each text. An engine refuses all texts of a request for one, which is found by halving."""
    response = await _post(function, texts, ready, patience)
    if response.status_code == 400 and len(texts) > 1:
        half = len(texts) // 2
        first = await _ask(function, texts[:half], ready, patience)
        return first + await _ask(function, texts[half:], ready, patience)
    if response.status_code == 400:
        return [RowScore(None, f"the judge refused the text: {_sentence(response)}")]
    return [_score(function.judge, answer) for answer in response.json()["data"]]


async def _post(function: JudgeFunction, texts: list[str], ready: Ready, patience: float) -> httpx.Response:
    """The engine's answer about `texts`, 200 or 400."""
    judge = function.judge
    body: dict[str, Any] = {"model": judge.deployment_id, "input": texts}
    path = "/v1/regression" if judge.label is None else "/v1/classification"
    if judge.label is not None:
        body["data_format"] = "probs"
    deadline, wait, lost = time.monotonic() + patience, 0.2, 0
    while True:
        engine = await _serving(function, ready, max(deadline - time.monotonic(), 0.0))
        try:
            async with engine_client.connect(engine) as client:
                response = await client.post(path, json=body)
            if response.status_code in (200, 400):
                return response
            problem, lost = _sentence(response), lost + 1
        except (httpx.ConnectError, httpx.ConnectTimeout):
            problem = "it refuses connections"  # its process has died: it is about to be started again elsewhere
        except httpx.TransportError as error:
            problem, lost = f"it ended before it answered ({type(error).__name__})", lost + 1
        if lost == _MOST_LOST or time.monotonic() >= deadline:
            raise Unavailable(
                f"The judge {function.name!r} gave no answer: the engine {engine.id} of its deployment "
                f"{judge.deployment_id} cannot be asked from here: {problem}."
            )
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


async def _serving(function: JudgeFunction, ready: Ready, seconds: float) -> Engine:
    try:
        return await ready(seconds)
    except EmissaryError as error:
        told = f"The judge {function.name!r} cannot ask its deployment {function.judge.deployment_id}: {error}"
        raise type(error)(told, error.code, retry_after=error.retry_after) from error


def _score(judge: Judge, answer: dict[str, Any]) -> RowScore:
    value = float(answer["logits"] if judge.label is None else answer["probs"][judge.label])
    if not math.isfinite(value):
        return RowScore(None, f"the judge gave {value}, which is no finite number")
    return RowScore(value, None)


def _sentence(response: httpx.Response) -> str:
    return str(response.json().get("error", response.text)).removesuffix(".")
