"""The asyncio front of a Generator: requests from many clients, decoded together by one thread."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from queue import SimpleQueue

from emissary.errors import EmissaryError, Unavailable
from emissary.serving.decoding import GenerationRequest, GenerationResult, Row
from emissary.serving.generation import MAX_ROWS, Generator

logger = logging.getLogger(__name__)

Item = str | GenerationResult | EmissaryError
_CLOSING = "The engine is shutting down; send the request again when it is back."


@dataclass(eq=False)
class _Client:
    row: Row
    streams: bool
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    items: asyncio.Queue[Item] = field(default_factory=asyncio.Queue)

    def give(self, item: Item) -> None:
        try:
            self.loop.call_soon_threadsafe(self.items.put_nowait, item)
        except RuntimeError:  # the client's event loop is closed
            self.row.cancelled = True


class Batcher:
    """Runs the requests of all clients on one `generator`, up to `max_batch` rows at once, in order of
    arrival.

    A request joins the running batch at the next step when there is room. Call `close` when done.
    """

    def __init__(self, generator: Generator, max_batch: int = MAX_ROWS) -> None:
        self._generator = generator
        self._max_batch = max_batch
        self._arrivals: SimpleQueue[_Client | None] = SimpleQueue()
        self._clients: set[_Client] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Requests that wait or decode."""
        return len(self._clients)

    async def submit(self, request: GenerationRequest) -> GenerationResult:
        """The result of `request`. Cancelling the call takes it out of the batch.

        Raises what `Generator.row` raises, and Unavailable when the batcher is closed or the batch fails.
        """
        async with aclosing(self._items(request, streams=False)) as items:
            async for item in items:
                if isinstance(item, GenerationResult):
                    return item
        raise Unavailable("The engine ended the request without an answer; send it again.")

    def stream(self, request: GenerationRequest) -> AsyncGenerator[str | GenerationResult]:
        """Pieces of text that are final, as they come, and the result last. Closing it takes the row out of
        the batch.

        Raises like `submit`, and refuses a request that cannot be before the first iteration.
        """
        return self._items(request, streams=True)

    def _items(self, request: GenerationRequest, streams: bool) -> AsyncGenerator[str | GenerationResult]:
        # Made ready here, not at the first iteration: a bad request is refused before a response has begun,
        # and the adapter is the one loaded now.
        client = _Client(self._generator.row(request), streams)
        return self._follow(client)

    async def _follow(self, client: _Client) -> AsyncGenerator[str | GenerationResult]:
        if self._closed:
            raise Unavailable(_CLOSING)
        self._clients.add(client)
        self._arrivals.put(client)
        try:
            while True:
                item = await client.items.get()
                if isinstance(item, EmissaryError):
                    raise item
                yield item
                if isinstance(item, GenerationResult):
                    return
        finally:
            client.row.cancelled = True
            self._clients.discard(client)

    def close(self) -> None:
        """End the thread after its present step; requests under way get Unavailable."""
        self._closed = True
        self._arrivals.put(None)
        self._thread.join()

    def _work(self) -> None:
        clients: dict[Row, _Client] = {}
        waiting: deque[Row] = deque()
        batch = self._generator.new_batch(self._max_batch)
        while True:
            while not self._arrivals.empty() or not (waiting or batch.rows):
                client = self._arrivals.get()
                if client is None:
                    for other in clients.values():
                        other.give(Unavailable(_CLOSING))
                    return
                clients[client.row] = client
                waiting.append(client.row)
            for row in [row for row in waiting if row.cancelled]:
                waiting.remove(row)
                del clients[row]
            try:
                batch.admit(waiting)
                events = batch.step()
            except Exception:
                logger.exception("A batch of %d rows failed", len(clients))
                for client in clients.values():
                    client.give(Unavailable("The engine failed on this batch; send the request again."))
                clients, waiting = {}, deque()
                batch = self._generator.new_batch(self._max_batch)
                continue
            for event in events:
                client = clients[event.row]
                if event.text and client.streams:
                    client.give(event.text)
                if event.result is not None:
                    client.give(event.result)
                    del clients[event.row]
