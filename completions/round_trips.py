"""Commands to Redis: all that wait at one moment share a round trip; nobody waits for one that is away.

One connection keeps them in order, and a caller that is cancelled leaves no reply half read. After a
failure every command fails at once until a probe in the background has found Redis back.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

PAUSE_SECONDS = 2.0  # between probes while Redis is away
TRIP_SECONDS = 0.25  # then Redis counts as away
LOG_SECONDS = 60.0  # at most one line per
BATCH = 256  # commands per round trip

Command: TypeAlias = tuple[str | bytes | int, ...]
Waiting: TypeAlias = tuple[Command, asyncio.Future[Any]]

logger = logging.getLogger(__name__)


class Away(Exception):
    """Redis did not answer; what it did with the command is not known."""


class RoundTrips:
    """Commands to Redis in order, all that wait in one round trip; and whether Redis is there at all.

    `script`: what EVALSHA commands run, loaded when Redis does not know it. `loss` and `gain` are said in the
    log when Redis goes away, and when it is back.
    """

    def __init__(
        self, url: str, *, pause_seconds: float = PAUSE_SECONDS, script: str = "", loss: str, gain: str
    ) -> None:
        self._client = Redis.from_url(
            url,
            max_connections=2,  # the batches' and a probe's
            protocol=2,  # with 3 redis-py (8.1) no longer notices that an idle connection was closed
            socket_timeout=None,  # `_patience` ends what takes too long
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),  # what was sent may have been done: once more could count twice
        )
        self._pause_seconds = pause_seconds
        self._script, self._loss, self._gain = script, loss, gain
        self._waiting: list[Waiting] = []
        self._flusher: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._probe_at: float | None = None  # while Redis is away
        self._probing = False
        self._quiet_until = 0.0

    def reachable(self) -> bool:
        """Whether Redis answered last. While it does not, asking starts a probe now and then."""
        if self._probe_at is None:
            return True
        if not self._probing and time.monotonic() >= self._probe_at:
            self._probing = True
            self.spawn(self._probe())
        return False

    def send(self, command: Command) -> asyncio.Future[Any]:
        """The reply to a command; raises Away when there is none."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(
                self._flush(), name="redis", context=Context()
            )
        return future

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = _task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        tasks = [*self._tasks, *([self._flusher] if self._flusher else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                try:
                    await self._exchange(batch)
                finally:
                    _fail(batch)  # those that got no reply
        finally:
            self._flusher = None
            waiting, self._waiting = self._waiting, []
            _fail(waiting)

    async def _exchange(self, batch: list[Waiting]) -> None:
        if self._probe_at is not None:
            return
        try:
            async with _patience(TRIP_SECONDS):
                replies = await self._round_trip([command for command, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with Redis, callers must go on
            self._lost(error)
            return
        for (_, future), reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception):  # read-only, out of memory, loading, moved …
                self._lost(reply)
            elif not future.done():
                future.set_result(reply)

    async def _round_trip(self, commands: list[Command]) -> list[Any]:
        replies = await self._send(commands)
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # the first use, or Redis was restarted
            await self._client.script_load(self._script)
            again = await self._send([commands[number] for number in unknown])
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies

    async def _send(self, commands: list[Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute(raise_on_error=False))

    async def _probe(self) -> None:
        try:
            async with _patience(TRIP_SECONDS):
                await self._client.ping()
        except Exception as error:  # noqa: BLE001 - as above
            self._lost(error)
        else:
            self._probe_at = None
            logger.info("Redis is back: %s.", self._gain)
        finally:
            self._probing = False

    def _lost(self, error: Exception) -> None:
        now = time.monotonic()
        self._probe_at = now + self._pause_seconds
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_SECONDS
            logger.warning(
                "Redis does not serve (%s: %s): until it does, %s.",
                type(error).__name__,
                str(error) or f"no answer within {TRIP_SECONDS} s",
                self._loss,
            )


@asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout` in two halves: what holds up this process uses up no more than one.

    A reply that lay there all the while is not one that did not come.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        half = loop.call_later(seconds / 2, lambda: limit.reschedule(loop.time() + seconds / 2))
        try:
            yield
        finally:
            half.cancel()


def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name="redis", context=Context())


def _fail(batch: list[Waiting]) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(Away())
            future.exception()  # whoever waited may be gone: no "never retrieved"
