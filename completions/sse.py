"""A completion as server-sent events: started, delta …, usage, done; or error as the last."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import Context
from typing import Any

import orjson
from django.http import StreamingHttpResponse

from completions.bridge import run_sync
from completions.errors import LLMServiceError
from completions.exceptions import error_body, service_error_body
from completions.serializers import dollars, response_body
from completions.streams import Buffer
from completions.types import Delta, Done, Started, StreamEvent
from providers.types import JSON

logger = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 15.0
SLOW_SECONDS = 60.0  # a reader that takes nothing for so long is gone
BUFFERED_EVENTS = 64
KEEPALIVE = b": keepalive\n\n"


class EventStream:
    """Events pulled by a task of its own: neither silence nor a slow reader interrupts the pipeline midway.

    `first` came before the stream exists, so what fails earlier can still be an HTTP error.
    """

    def __init__(self, events: AsyncGenerator[StreamEvent, None]) -> None:
        self.first: StreamEvent | None = None
        self._events = events
        self._buffer: Buffer[StreamEvent | Exception] = Buffer(BUFFERED_EVENTS)
        self._loop = asyncio.get_running_loop()
        # An empty context: the one here is a request's, whose thread may be gone before the stream ends.
        self._pump = self._loop.create_task(self._pull(), context=Context())

    @classmethod
    async def open(cls, events: AsyncGenerator[StreamEvent, None]) -> "EventStream":
        """Raises what the pipeline raises before its first event. Cancelling it cancels the call."""
        stream = cls(events)
        try:
            first = await anext(stream._buffer)
        except BaseException:
            await stream.stop()
            raise
        if isinstance(first, Exception):
            raise first
        stream.first = first
        return stream

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The wire. Closing it ends the call."""
        item: StreamEvent | Exception | None = self.first
        try:
            while True:
                if item is not None:
                    yield _frame(item)
                try:
                    async with asyncio.timeout(KEEPALIVE_SECONDS):
                        item = await anext(self._buffer)
                except TimeoutError:
                    item = None
                    yield KEEPALIVE
                except StopAsyncIteration:
                    return
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End the call if it still runs, and wait until it has ended."""
        self._pump.cancel()
        await asyncio.wait([self._pump])

    def abandon(self) -> None:
        """`stop()` for a thread that cannot wait: nobody will read the stream."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pump.cancel)

    async def _pull(self) -> None:
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    async with asyncio.timeout(SLOW_SECONDS):
                        await self._buffer.put(event)
        except TimeoutError:
            logger.info("a reader of a stream took nothing for %s s; the call was ended", SLOW_SECONDS)
        except Exception as error:  # noqa: BLE001 - it is told, and logged, where the frames are made
            await self._buffer.put(error)
        finally:
            self._buffer.close()


class EventStreamResponse(StreamingHttpResponse):
    """An SSE answer. Under ASGI it streams on the server's loop; under WSGI frames are fetched from it."""

    def __init__(self, stream: EventStream, *, asgi: bool) -> None:
        self._frames = stream.frames()
        super().__init__(
            self._frames if asgi else _blocking(self._frames),
            content_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._resource_closers.append(stream.abandon)  # type: ignore[attr-defined]

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Django's own wraps the frames twice: a hang-up would reach them only through the collector."""
        return self._frames


def _blocking(frames: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
    try:
        while (frame := run_sync(_next, frames)) is not None:
            yield frame
    finally:
        run_sync(_close, frames)


async def _next(frames: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(frames, None)


async def _close(frames: AsyncGenerator[bytes, None]) -> None:
    await frames.aclose()


def _frame(item: StreamEvent | Exception) -> bytes:
    if isinstance(item, Started):
        return _event("started", {"id": str(item.id), "model": item.model, "provider": item.provider})
    if isinstance(item, Delta):
        parts: JSON = {
            "content": item.content,
            "reasoning": item.reasoning,
            "tool_calls": list(item.tool_calls),
        }
        return _event("delta", {name: value for name, value in parts.items() if value})
    if isinstance(item, Done):
        return _last(item)
    if isinstance(item, LLMServiceError):
        return _event("error", service_error_body(item))
    logger.error("unexpected error in a stream", exc_info=item)
    return _event("error", error_body(500, "Something went wrong inside the hub. Its log says what."))


def _last(done: Done) -> bytes:
    response = done.response
    usage = {
        "prompt_tokens": response.tokens.prompt,
        "completion_tokens": response.tokens.completion,
        "total_tokens": response.tokens.total,
        "cost_usd": dollars(response.metadata.cost),
    }
    whole = {"finish_reason": response.metadata.finish_reason, **response_body(response)}
    return _event("usage", usage) + _event("done", whole)


def _event(name: str, data: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
