"""The asyncio front of a PooledModel: texts of many requests in one forward pass, on one thread."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from emissary.errors import Unavailable
from emissary.serving.decoding import BATCH_TOKENS
from emissary.serving.pooled import PooledModel, PooledRow

logger = logging.getLogger(__name__)

MAX_ROWS = 64


class PooledBatcher:
    """Runs the rows of all requests on one `model`, in order of arrival. Call `close` when done."""

    def __init__(self, model: PooledModel) -> None:
        self._model = model
        self._waiting: deque[tuple[PooledRow, Future[Tensor]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pooled")
        self._requests = 0

    @property
    def in_flight(self) -> int:
        """Requests that wait or compute."""
        return self._requests

    async def submit(self, rows: Sequence[PooledRow]) -> list[Tensor]:
        """What `PooledModel.run` makes of `rows`. Cancelling the call takes those out that wait.

        Raises Unavailable when the batcher is closed or the batch fails.
        """
        results: list[Future[Tensor]] = [Future() for _ in rows]
        self._waiting.extend(zip(rows, results, strict=True))
        try:
            self._thread.submit(self._work)
        except RuntimeError as error:
            raise Unavailable("The engine is shutting down; send the request again when it is back.") from error
        self._requests += 1
        try:
            return list(await asyncio.gather(*map(asyncio.wrap_future, results)))
        finally:
            self._requests -= 1

    def close(self) -> None:
        """End the thread after its present batch; requests under way get Unavailable."""
        self._thread.shutdown(cancel_futures=True)
        while self._waiting:
            _, result = self._waiting.popleft()
            if result.set_running_or_notify_cancel():
                result.set_exception(Unavailable("The engine is shutting down; send the request again later."))

    def _work(self) -> None:
        """Run a batch; a submission calls for a run each, and more than one batch at once is left for the next."""
        while batch := self._next_batch():
            try:
                outputs = self._model.run([row for row, _ in batch])
            except Exception:
                logger.exception("A batch of %d rows failed", len(batch))
                for _, result in batch:
                    result.set_exception(Unavailable("The engine failed on this batch; send the request again."))
                continue
            for (_, result), output in zip(batch, outputs, strict=True):
                result.set_result(output)

    def _next_batch(self) -> list[tuple[PooledRow, Future[Tensor]]]:
        batch: list[tuple[PooledRow, Future[Tensor]]] = []
        longest = 0
        while self._waiting and len(batch) < MAX_ROWS:
            row, result = self._waiting[0]
            longest = max(longest, len(row.ids))
            if batch and longest * (len(batch) + 1) > BATCH_TOKENS:
                break
            self._waiting.popleft()
            if result.set_running_or_notify_cancel():
                batch.append((row, result))
        return batch
