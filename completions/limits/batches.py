"""Commands to Redis: all that wait at one moment share a round trip; nobody waits for one that is away.

One connection keeps them in order, and a caller that is cancelled leaves no reply half read. After a
failure every command fails at once until a probe in the background has found Redis back.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

SCRIPT = (Path(__file__).parent / "script.lua").read_text()
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # the name EVALSHA knows it by
TRIP_SECONDS = 0.25  # then Redis counts as away
LOG_SECONDS = 60.0  # at most one line per
BATCH = 256  # commands per round trip

Command: TypeAlias = tuple[str | int, ...]
Waiting: TypeAlias = tuple[Command, asyncio.Future[Any]]

logger = logging.getLogger(__name__)


class Away(Exception):
    """Redis did not answer; what it did with the command is not known."""


class Batches:
    """Commands to Redis in order, all that wait in one round trip; and whether Redis is there at all."""

    def __init__(self, url: str, pause_seconds: float) -> None:
        self._client = Redis.from_url(
            url,
            max_connections=2,  # the batches' and a probe's
            protocol=2,  # with 3 redis-py (8.1) no longer notices that an idle connection was closed
            socket_timeout=TRIP_SECONDS,
            socket_connect_timeout=TRIP_SECONDS,
            retry=Retry(NoBackoff(), 0),  # what was sent may have been done: once more could count twice
        )
        self._pause_seconds = pause_seconds
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
        """The reply to script.lua, called with two keys and arguments; raises Away when there is none."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush(), name="limits")
        return future

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="limits")
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
            async with asyncio.timeout(TRIP_SECONDS):
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
        replies = await self._evaluate(commands)
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # the first use, or Redis was restarted
            await self._client.script_load(SCRIPT)
            again = await self._evaluate([commands[number] for number in unknown])
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies

    async def _evaluate(self, commands: list[Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command("EVALSHA", SHA, 2, *command)
        return list(await pipeline.execute(raise_on_error=False))

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(TRIP_SECONDS):
                await self._client.ping()
        except Exception as error:  # noqa: BLE001 - as above
            self._lost(error)
        else:
            self._probe_at = None
            logger.info("Redis is back: rate limits are counted by all processes together.")
        finally:
            self._probing = False

    def _lost(self, error: Exception) -> None:
        now = time.monotonic()
        self._probe_at = now + self._pause_seconds
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_SECONDS
            logger.warning(
                "Redis does not serve (%s: %s): this process counts rate limits for itself until it does.",
                type(error).__name__,
                str(error) or f"no answer within {TRIP_SECONDS} s",
            )


def _fail(batch: list[Waiting]) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(Away())
            future.exception()  # whoever waited may be gone: no "never retrieved"
