"""Trying candidates in order until one begins to answer."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from providers.drivers import driver_for
from providers.errors import ProviderMisconfigured, UpstreamError, UpstreamTimeout
from providers.types import JSON, Answer, StreamChunk, Target

T = TypeVar("T")


@dataclass(slots=True)
class Tried:
    """One upstream call. `latency_ms` and `error` are None while it is the one that answers."""

    target: Target
    started_ms: int  # after the dispatch began
    latency_ms: int | None = None
    error: UpstreamError | None = None


@dataclass(slots=True)
class Dispatch:
    """One call over its candidates. `target` is the one that answers, or was tried last.

    `timeout_seconds` bounds the whole call; each provider's own total deadline holds too.
    """

    targets: Sequence[Target]
    body: JSON
    timeout_seconds: float | None = None
    tried: list[Tried] = field(default_factory=list)
    target: Target | None = None
    errors: list[UpstreamError | ProviderMisconfigured] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        """How many upstream calls were made."""
        return len(self.tried)

    async def complete(self) -> Answer:
        """The first whole answer. Raises the last candidate's error."""

        async def one(target: Target, deadline: float) -> Answer:
            return await driver_for(target.endpoint.type).complete(target, self.body, deadline=deadline)

        return await self._first(one)

    async def stream(self) -> AsyncGenerator[StreamChunk, None]:
        """The chunks of the first candidate that begins to answer. Raises the last candidate's error.

        After the first chunk there is no other candidate: its fault is the call's fault.
        """

        async def one(
            target: Target, deadline: float
        ) -> tuple[StreamChunk, AsyncGenerator[StreamChunk, None]]:
            chunks = driver_for(target.endpoint.type).stream(target, self.body, deadline=deadline)
            try:
                return await anext(chunks), chunks
            except StopAsyncIteration:
                raise AssertionError(
                    f"driver of {target.endpoint.type} ended a stream without a chunk"
                ) from None
            except BaseException:
                await chunks.aclose()
                raise

        first, rest = await self._first(one)
        async with aclosing(rest):
            yield first
            async for chunk in rest:
                yield chunk

    async def _first(self, attempt: Callable[[Target, float], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for target in self.targets:
            self.target = target
            if target.unusable:
                self.errors.append(ProviderMisconfigured(target.unusable))
                continue
            began = loop.time()
            deadline = self._deadline(target, started, began)
            tried = Tried(target, int((began - started) * 1000))
            self.tried.append(tried)
            try:
                return await attempt(target, deadline)
            except UpstreamError as error:
                error.provider = target.endpoint.provider
                tried.error, tried.latency_ms = error, int((loop.time() - began) * 1000)
                self.errors.append(error)
                if not error.retryable:
                    raise
        raise self.errors[-1]

    def _deadline(self, target: Target, started: float, now: float) -> float:
        """Loop time by which this attempt must end.

        Raises UpstreamTimeout when the call's time is up already.
        """
        seconds = min(target.endpoint.timeouts.total, self.timeout_seconds or float("inf"))
        if started + seconds <= now:
            raise self.errors[-1] if self.errors else UpstreamTimeout("No time was left.", phase="total")
        return started + seconds
