"""Trying candidates in order until one begins to answer; once more where its fault may pass."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from providers import breaker, health
from providers.drivers import driver_for
from providers.drivers.base import Sink
from providers.errors import (
    NeverSent,
    ProviderMisconfigured,
    UpstreamAuthError,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamResting,
    UpstreamTimeout,
    UpstreamTooLarge,
)
from providers.types import JSON, Answer, Operation, StreamChunk, Target

T = TypeVar("T")
Attempt = Callable[[Target, float], Awaitable[T]]

PAUSE_SECONDS = (0.2, 0.6)  # before the second try of a candidate that named no time
LONGEST_PAUSE_SECONDS = 2.0  # while there is another candidate: it may well be faster


@dataclass(slots=True)
class Tried:
    """One upstream call. `latency_ms` and `error` are None of the one that answers, or was cut off."""

    target: Target
    started_ms: int  # after the dispatch began
    latency_ms: int | None = None
    error: UpstreamError | None = None
    sent: bool = True  # False: cut off before the upstream got any of it


@dataclass(slots=True)
class Dispatch:
    """One call over its candidates. `target` is the one that answers, or was tried last.

    `timeout_seconds` bounds the whole call; each provider's own total deadline holds too.
    """

    targets: Sequence[Target]
    operation: Operation
    body: JSON
    timeout_seconds: float | None = None
    tried: list[Tried] = field(default_factory=list)
    target: Target | None = None
    errors: list[UpstreamError | ProviderMisconfigured] = field(default_factory=list)
    begun: bool = False  # something of the answer was brought: no other candidate can take over

    @property
    def attempts(self) -> int:
        """How many upstream calls were made."""
        return len(self.tried)

    async def complete(self) -> Answer:
        """The first whole answer. Raises the last candidate's error."""
        return await self._first(self._complete)

    async def stream(self, sink: Sink) -> None:
        """Bring the answer of the first candidate that begins one to `sink`. Raises the last one's error.

        Once it has begun there is no other candidate: its fault is the call's fault.
        """

        async def one(target: Target, deadline: float) -> None:
            driver = driver_for(target.endpoint.type)
            await driver.stream(target, self.operation, self.body, _Begun(self, sink), deadline=deadline)

        await self._first(one)

    async def _complete(self, target: Target, deadline: float) -> Answer:
        driver = driver_for(target.endpoint.type)
        return await driver.complete(target, self.operation, self.body, deadline=deadline)

    async def _first(self, attempt: Attempt[T]) -> T:
        started = asyncio.get_running_loop().time()
        candidates = breaker.order(self.targets)
        if not candidates:
            raise self._resting()
        for number, target in enumerate(candidates, start=1):
            self.target = target
            if target.unusable:
                self.errors.append(ProviderMisconfigured(target.unusable))
                continue
            others = number < len(candidates)
            try:
                return await self._attempt(attempt, target, started)
            except UpstreamError as error:
                pause = self._pause(error, target, started, others=others)
                if pause is None:
                    if self.begun or not error.retryable:
                        raise
                    continue
            await asyncio.sleep(pause)
            try:
                return await self._attempt(attempt, target, started)
            except UpstreamError as error:
                if self.begun or not error.retryable:
                    raise
        raise self.errors[-1]

    async def _attempt(self, attempt: Attempt[T], target: Target, started: float) -> T:
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = self._deadline(target, started, began)
        tried = Tried(target, int((began - started) * 1000))
        self.tried.append(tried)
        breaker.begun(target)
        try:
            answer = await attempt(target, deadline)
        except UpstreamError as error:
            error.provider = target.endpoint.provider
            tried.error, tried.latency_ms = error, int((loop.time() - began) * 1000)
            self.errors.append(error)
            if self._tells_nothing(error, target):
                breaker.abandoned(target)
            else:
                breaker.failed(target, error)
            if isinstance(error, UpstreamAuthError):
                health.refused(target, error)
            raise
        except NeverSent as cut:
            tried.sent = False
            breaker.abandoned(target)
            raise asyncio.CancelledError(*cut.args) from None  # as its task expects it
        except BaseException:
            breaker.abandoned(target)
            raise
        breaker.succeeded(target)
        if target.key_refused:
            health.accepted(target)
        return answer

    def _pause(self, error: UpstreamError, target: Target, started: float, *, others: bool) -> float | None:
        """Seconds until the same candidate is tried once more; None where it is not."""
        if self.begun or not isinstance(error, UpstreamRateLimited | UpstreamOverloaded):
            return None
        pause = error.retry_after or random.uniform(*PAUSE_SECONDS)  # noqa: S311 - spreads load, keeps no secret
        if others and pause > LONGEST_PAUSE_SECONDS:
            return None
        now = asyncio.get_running_loop().time()
        return pause if now + pause < started + self._seconds(target) else None

    def _tells_nothing(self, error: UpstreamError, target: Target) -> bool:
        """Whether the caller brought it about, by its own deadline or by what it asked for.

        Held against the target, one caller could open its circuit for all.
        """
        if isinstance(error, UpstreamTimeout) and error.phase == "total":
            return self._seconds(target) < target.endpoint.timeouts.total
        return isinstance(error, UpstreamTooLarge)

    def _seconds(self, target: Target) -> float:
        return min(target.endpoint.timeouts.total, self.timeout_seconds or float("inf"))

    def _deadline(self, target: Target, started: float, now: float) -> float:
        """Loop time by which this attempt must end.

        Raises UpstreamTimeout when the call's time is up already.
        """
        seconds = self._seconds(target)
        if started + seconds <= now:
            if not self.errors:
                provider = target.endpoint.provider
                self.errors.append(UpstreamTimeout("No time was left.", phase="total", provider=provider))
            raise self.errors[-1]
        return started + seconds

    def _resting(self) -> UpstreamResting:
        self.target = self.targets[0]
        seconds = max(breaker.rest(self.targets), 1.0)
        name = self.target.endpoint.provider
        return UpstreamResting(
            f"provider {name} failed too often of late and is left alone for {seconds:.0f} s",
            retry_after=seconds,
            provider=name,
        )


class _Begun:
    """A sink that notes in its dispatch that the answer has begun."""

    __slots__ = ("dispatch", "put", "room", "sink")

    def __init__(self, dispatch: Dispatch, sink: Sink) -> None:
        self.dispatch, self.sink = dispatch, sink
        self.room = sink.room
        self.put = self._first

    def _first(self, chunks: Sequence[StreamChunk]) -> bool:
        self.dispatch.begun = True
        self.put = self.sink.put
        return self.sink.put(chunks)
