"""A completion as server-sent events: started, delta …, usage, done; or error as the last."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any

import orjson
from django.http import StreamingHttpResponse

from completions.answering import Answering
from completions.bridge import run_sync
from completions.errors import LLMServiceError
from completions.exceptions import error_body, service_error_body
from completions.models import State
from completions.serializers import dollars, response_body
from completions.types import LLMResponse, Started
from providers.types import JSON, StreamChunk

logger = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 15.0
KEEPALIVE = b": keepalive\n\n"


class EventStream:
    """A call that has begun to answer, as the bytes of events."""

    def __init__(self, run: Answering, first: Sequence[StreamChunk]) -> None:
        self.started = run.started()
        self.run = run
        self._first = first
        self._loop = asyncio.get_running_loop()
        run.reader.silence_seconds = KEEPALIVE_SECONDS

    @classmethod
    async def open(cls, run: Answering) -> "EventStream":
        """Raises what fails before the first chunk: that can be an HTTP error. Cancelling ends the call."""
        try:
            first = await run.reader.read()
            if not first:
                await run.answer()
        except BaseException:
            await run.cancel(State.CLIENT_GONE)
            raise
        return cls(run, first)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The wire. Closing it ends the call."""
        run = self.run
        try:
            yield _started(self.started) + b"".join(map(_delta, self._first))
            while (chunks := await run.reader.read()) or not run.reader.at_end:
                yield b"".join(map(_delta, chunks)) if chunks else KEEPALIVE
            yield await self._last()
        finally:
            await run.cancel(State.CLIENT_GONE)

    def abandon(self) -> None:
        """End the call, from a thread that cannot wait: nobody will read the stream."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.run.stop, State.CLIENT_GONE)

    async def _last(self) -> bytes:
        try:
            return _done(await self.run.answer())
        except LLMServiceError as error:
            return _event("error", service_error_body(error))
        except Exception:
            logger.exception("unexpected error in a stream")
            return _event("error", error_body(500, "Something went wrong inside the hub. Its log says what."))


class EventStreamResponse(StreamingHttpResponse):
    """An SSE answer. Under ASGI it streams on the server's loop; under WSGI frames are fetched from it."""

    def __init__(self, stream: EventStream, *, asgi: bool, headers: dict[str, str]) -> None:
        self._frames = stream.frames()
        super().__init__(self._frames if asgi else _blocking(self._frames), headers=headers)
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


def _started(started: Started) -> bytes:
    data = {"id": str(started.id), "model": started.model, "provider": started.provider}
    return _event("started", data)


def _delta(chunk: StreamChunk) -> bytes:
    """The event of a chunk; nothing where it brings nothing that is shown."""
    parts: JSON = {}
    if chunk.content:
        parts["content"] = chunk.content
    if chunk.reasoning:
        parts["reasoning"] = chunk.reasoning
    if chunk.tool_calls:
        parts["tool_calls"] = chunk.tool_calls
    return b"event: delta\ndata: " + orjson.dumps(parts) + b"\n\n" if parts else b""


def _done(response: LLMResponse) -> bytes:
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
