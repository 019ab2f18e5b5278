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
class Dispatch:
    """One call over its candidates. `target` is the one that answers, or was tried last; `attempts` counts
    calls.

    `timeout_seconds` bounds the whole call; each provider's own total deadline holds too.
    """

    targets: Sequence[Target]
    body: JSON
    timeout_seconds: float | None = None
    attempts: int = 0
    target: Target | None = None
    errors: list[UpstreamError | ProviderMisconfigured] = field(default_factory=list)

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
            try:
                return await attempt(target, self._deadline(target, started, loop.time()))
            except UpstreamError as error:
                error.provider = target.endpoint.provider
                self.errors.append(error)
                if not error.retryable:
                    raise
            except ProviderMisconfigured as error:
                self.errors.append(error)
        raise self.errors[-1]

    def _deadline(self, target: Target, started: float, now: float) -> float:
        """Loop time by which this attempt must end.

        Raises when the call's own time is already up, or no key.
        """
        if target.unusable:
            raise ProviderMisconfigured(target.unusable)
        seconds = min(target.endpoint.timeouts.total, self.timeout_seconds or float("inf"))
        if started + seconds <= now:
            raise UpstreamTimeout(f"The call did not end within {seconds:g} s.", phase="total")
        self.attempts += 1
        return started + seconds
