"""OpenAI's chat completion wire, and everything that speaks it."""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping

import aiohttp

from providers.drivers import wire
from providers.drivers.base import Driver, HeaderListener
from providers.drivers.chunks import (
    answer_of,
    begins,
    chunk_of,
    chunk_of_answer,
    invalid,
    open_choices,
    request_bytes,
)
from providers.drivers.sse import Event, SSEParser
from providers.drivers.wire import aclose as aclose
from providers.errors import UpstreamError, UpstreamInvalid, UpstreamTruncated
from providers.types import JSON, Answer, Endpoint, ModelInfo, StreamChunk, Target, Validation

DONE = "[DONE]"
HELD_CHUNKS = 1000  # without content, held back at most while it is open whether the answer is an error
LINGER_SECONDS = 0.02  # for the end of the body after [DONE], so that the connection can be used again


def _unheard(provider: str, headers: Mapping[str, str]) -> None:
    """Nobody listens."""


class OpenAIDriver(Driver):
    """`heard` gets the headers of every answer, good or bad."""

    def __init__(self, heard: HeaderListener = _unheard) -> None:
        self._heard = heard

    async def complete(self, target: Target, body: JSON, *, deadline: float) -> Answer:
        endpoint = target.endpoint
        async with wire.phase(endpoint, "total", math.inf, deadline):
            response = await self._begin(target, request_bytes(target, body, stream=False))
            try:
                await wire.check(endpoint, response, self._heard)
                raw = await wire.read_body(response, endpoint.provider)
            finally:
                response.close()  # a body read to its end has given its connection back already
        return answer_of(endpoint, raw)

    async def stream(
        self, target: Target, body: JSON, *, deadline: float
    ) -> AsyncGenerator[StreamChunk, None]:
        endpoint = target.endpoint
        first_by = asyncio.get_running_loop().time() + endpoint.timeouts.first_token
        async with wire.phase(endpoint, "first_token", first_by, deadline):
            response = await self._begin(target, request_bytes(target, body, stream=True))
        try:
            async with wire.phase(endpoint, "first_token", first_by, deadline):
                await wire.check(endpoint, response, self._heard)
                whole = b""
                if response.content_type == "application/json":
                    whole = await wire.read_body(response, endpoint.provider)
            if whole:
                yield chunk_of_answer(endpoint, whole)
                return
            answer = _Stream(endpoint, response, first_by, deadline)
            while chunks := await answer.read():
                for chunk in chunks:
                    yield chunk
        finally:
            response.close()

    async def list_models(self, endpoint: Endpoint) -> list[ModelInfo]:
        from providers.drivers import control

        return await control.list_models(endpoint, self.headers(endpoint), self._heard)

    async def validate(self, endpoint: Endpoint) -> Validation:
        from providers.drivers import control

        return await control.validate(endpoint, self.headers(endpoint), self._heard)

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        """What this dialect sends besides the body's type: who we are to this provider."""
        headers = dict(endpoint.headers)
        if endpoint.api_key:
            key = endpoint.api_key.reveal()
            name = endpoint.quirks.auth_header
            headers[name] = f"Bearer {key}" if name == "authorization" else key
        return headers

    async def _begin(self, target: Target, data: bytes) -> aiohttp.ClientResponse:
        endpoint = target.endpoint
        headers = self.headers(endpoint) | {"content-type": "application/json"}
        url = endpoint.base_url.rstrip("/") + "/chat/completions"
        return await wire.send(wire.session(), "POST", url, headers, endpoint, data)


class _Stream:
    """One streamed answer being read.

    Chunks before the first content are held back: an answer that turns out to be an error has not begun.
    """

    def __init__(
        self, endpoint: Endpoint, response: aiohttp.ClientResponse, first_by: float, deadline: float
    ) -> None:
        self.endpoint = endpoint
        self.response = response
        self.first_by = first_by
        self.deadline = deadline
        self.parser = SSEParser()
        self.begun = False
        self.ended = False  # nothing more is to be read
        self.choices: dict[object, bool] = {}  # by index: whether its finish_reason was seen
        self.held: list[StreamChunk] = []
        self.fault: UpstreamError | None = None  # raised after the good chunks before it were given out

    @property
    def finished(self) -> bool:
        return bool(self.choices) and all(self.choices.values())

    async def read(self) -> list[StreamChunk]:
        """The next chunks; none after [DONE], or at an end after finish_reason. Raises UpstreamError."""
        while not self.ended:
            if self.fault is not None:
                raise self.fault
            try:
                await self._parse(await self._events())
            except UpstreamError as error:
                self.fault, self.ended = error, False
            if self.begun and self.held:
                held, self.held = self.held, []
                return held
        return []

    async def _parse(self, events: list[Event]) -> None:
        for event in events:
            if event.data == DONE:
                await self._done()
                return
            try:
                self._add(chunk_of(self.endpoint, event.data, event=event.event))
            except UpstreamInvalid:
                if not self.ended:
                    raise
                break  # the end cut an event in two
        if self.ended and not self.finished:
            raise self._truncated()

    def _add(self, chunk: StreamChunk) -> None:
        open_choices(chunk, self.choices)
        self.begun = self.begun or begins(chunk) or len(self.held) >= HELD_CHUNKS
        self.held.append(chunk)

    async def _done(self) -> None:
        if not self.choices:
            raise invalid(self.endpoint, "a stream without an answer")
        self.begun = self.ended = True
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await self.response.content.readany()
        except (aiohttp.ClientError, OSError):
            pass  # the answer is complete; the connection is closed instead of kept

    def _truncated(self) -> UpstreamTruncated:
        name = self.endpoint.provider
        return UpstreamTruncated(f"provider {name} ended its answer before it was finished", provider=name)

    async def _events(self) -> list[Event]:
        """The next events, or the last ones (`ended`). Pings and comments are none, and buy no time."""
        idle_by = asyncio.get_running_loop().time() + self.endpoint.timeouts.idle
        when, name = (idle_by, "idle") if self.begun else (self.first_by, "first_token")
        while True:
            data = await self._read(when, name)
            self.ended = not data
            events = self.parser.feed(data) if data else self.parser.close()
            events = [event for event in events if event.data and event.event != "ping"]
            if events or self.ended:
                return events

    async def _read(self, when: float, name: str) -> bytes:
        """The next bytes; none at the end of the body, or where a complete answer's connection broke."""
        timeout = asyncio.timeout_at(min(when, self.deadline))
        try:
            async with timeout:
                return await self.response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            if not timeout.expired() and (data := wire.undelivered(self.response)):
                return data
            if self.finished:
                return b""
            phase = name if when < self.deadline else "total"
            raise wire.translated(error, self.endpoint, phase, timeout.expired()) from None
