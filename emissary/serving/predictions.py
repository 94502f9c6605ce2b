"""The engine's operations on pooled models, and their answers."""

import asyncio
import base64
import uuid
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from torch import Tensor, nn

from emissary.errors import InvalidInput
from emissary.schemas.predictions import ClassificationRequest, EmbeddingRequest, RegressionRequest
from emissary.serving.pooled import PooledModel, PooledRow
from emissary.serving.pooled_batching import PooledBatcher

VALUE = "value"
"""The label under which /v1/classification answers for a regression."""


def add_predictions(
    app: FastAPI, batcher: PooledBatcher, model: PooledModel, adapter: Callable[[str], str | None]
) -> None:
    """Add to `app` the operations of the model's task type.

    `adapter` gives the adapter's name of a request's `model`, None for the base model, and raises NotFound.
    """

    async def run(name: str, texts: list[str], target: str | None = None) -> tuple[list[PooledRow], list[Tensor]]:
        chosen = adapter(name)
        names = ["input"] if len(texts) == 1 else [f"input[{position}]" for position in range(len(texts))]
        named = [*zip(names, texts, strict=True), *([] if target is None else [("target", target)])]
        rows = await asyncio.to_thread(lambda: [model.row(text, chosen, name=called) for called, text in named])
        return rows, await batcher.submit(rows)

    async def embeddings(body: EmbeddingRequest, request: Request) -> dict[str, Any]:
        if body.target is None:
            rows, vectors = await run(body.model, body.texts)
            answer = _openai(body.encoding_format, vectors)
        else:
            rows, (first, second) = await run(body.model, body.texts, body.target)
            answer = _compared(body, first, second)
        return answer | {"model": _shown_name(request, body.model), "usage": _usage(rows)}

    async def classification(body: ClassificationRequest, request: Request) -> dict[str, Any]:
        rows, outputs = await run(body.model, body.texts)
        data = [_scores(body.data_format, row, output) | {"index": i} for i, (row, output) in _numbered(rows, outputs)]
        return _frame("classify", _shown_name(request, body.model), data, rows)

    async def regression(body: RegressionRequest, request: Request) -> dict[str, Any]:
        rows, outputs = await run(body.model, body.texts)
        data = [{"index": i, "logits": float(output)} for i, (_, output) in _numbered(rows, outputs)]
        return _frame("regress", _shown_name(request, body.model), data, rows)

    if model.task_type == "embedding":
        app.post("/v1/embeddings")(embeddings)
    else:
        app.post("/v1/classification")(classification)
    if model.task_type == "regression":
        app.post("/v1/regression")(regression)


def _shown_name(request: Request, model: str) -> str:
    """The name that the caller knows the model by; `model` is the engine's."""
    return request.headers.get("x-answer-as", model)


def _numbered(rows: list[PooledRow], outputs: list[Tensor]) -> "enumerate[tuple[PooledRow, Tensor]]":
    return enumerate(zip(rows, outputs, strict=True))


def _scores(data_format: str, row: PooledRow, output: Tensor) -> dict[str, Any]:
    if row.task.task_type == "regression":
        if data_format == "probs":
            raise InvalidInput("data_format: a regression has no probabilities; leave data_format out.")
        return {"logits": {VALUE: float(output)}}
    values = row.task.probabilities(output) if data_format == "probs" else output
    return {data_format: dict(zip(row.task.labels, values.tolist(), strict=True))}


def _frame(kind: str, name: str, data: list[dict[str, Any]], rows: list[PooledRow]) -> dict[str, Any]:
    usage = {"completion_tokens": 0, "prompt_token_details": "cached_tokens: 0"} | _usage(rows)
    return {"id": f"{kind}-{uuid.uuid4().hex}", "model": name, "data": data, "usage": usage}


def _openai(encoding_format: str, vectors: list[Tensor]) -> dict[str, Any]:
    def encoded(vector: Tensor) -> str | list[float]:
        if encoding_format == "float":
            return list(vector.tolist())
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()

    data = [{"object": "embedding", "index": i, "embedding": encoded(vector)} for i, vector in enumerate(vectors)]
    return {"object": "list", "data": data}


def _compared(body: EmbeddingRequest, first: Tensor, second: Tensor) -> dict[str, Any]:
    response: dict[str, Any] = {"input_embedding": first.tolist(), "target_embedding": second.tolist()}
    if body.cosine:
        response["cosine_score"] = float(nn.functional.cosine_similarity(first, second, dim=0))
    if body.manhattan:
        response["manhattan_distance"] = float((first - second).abs().sum())
    if body.euclidean:
        response["euclidean_distance"] = float((first - second).norm())
    return {"id": f"rq-{uuid.uuid4().hex}", "response": response}


def _usage(rows: list[PooledRow]) -> dict[str, int]:
    tokens = sum(len(row.ids) for row in rows)
    return {"prompt_tokens": tokens, "total_tokens": tokens}
