"""Frames through Redis, so that a stream can be read where its call does not run.

    llmhub:live:<stream>          a Redis stream: frames in order, at most one entry per WRITE_SECONDS
    llmhub:live:<stream>:owner    who may read it, and which process makes it
    llmhub:live:alive:<process>   there as long as that process lives

Reading a stream of another process says so to it now and then (`control`), so that it goes on. While Redis
is away frames wait where they are made, as long as they are kept there: in Redis none is missing between two.
"""

import asyncio
import logging
import secrets
import weakref
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import orjson
from django.conf import settings
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from completions import control
from completions.errors import InvalidRequestError, UnavailableError
from completions.live.frames import lost
from completions.live.stream import LiveStream, Mirror, Owner
from providers.loops import PerLoop

logger = logging.getLogger(__name__)

WRITE_SECONDS = 0.05
ALIVE_SECONDS = 15
KEPT_SECONDS = 600  # of frames in Redis after the last was written
BLOCK_SECONDS = 2.0  # that a reader waits for frames before it looks whether their process lives
LEASE_SECONDS = 25.0  # for which a reader elsewhere speaks; it says so again in time
PAUSE_SECONDS = 1.0  # before another try while Redis is away
AWAY_SECONDS = 30.0  # then who reads from it is told
FIND_SECONDS = 2.0  # that a stream may be looked for
STOP_SECONDS = 2.0  # that the last frames may take when the process ends
MOST_ENTRIES = 200  # read at once
LOOKS = 3  # for a stream that is not there, before it counts as unknown
AWAY = (RedisError, OSError, RuntimeError)  # the last is uvloop's word for a connection just lost
PROCESS = secrets.token_hex(8)


class RedisMirror:
    """Writes what changed, all streams of the loop together."""

    def __init__(self) -> None:
        self._client: Any = client()
        # Weak: what its process keeps no longer needs no copy, however long Redis is away.
        self._changed: weakref.WeakSet[LiveStream] = weakref.WeakSet()
        self._written: weakref.WeakKeyDictionary[LiveStream, int] = weakref.WeakKeyDictionary()  # frames
        self._task: asyncio.Task[None] | None = None
        self._said_alive = float("-inf")  # loop time
        self._away = False

    def changed(self, stream: LiveStream) -> None:
        self._changed.add(stream)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write_until_still())

    async def aclose(self) -> None:
        """What was told last is there for who comes back to another process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._write(list(self._changed))
        except AWAY as error:  # or too slow
            logger.warning("the last frames could not be mirrored to Redis: %s", error)

    async def _write_until_still(self) -> None:
        try:
            while self._changed or self._written:
                await asyncio.sleep(PAUSE_SECONDS if self._away else WRITE_SECONDS)
                await self._try()
        finally:
            self._task = None

    async def _try(self) -> None:
        streams = list(self._changed)
        self._changed.clear()
        try:
            await self._write(streams)
        except BaseException as error:
            self._changed.update(streams)
            if not isinstance(error, AWAY):
                raise
            if not self._away:
                logger.warning("frames cannot be mirrored to Redis, and wait: %s", error)
            self._away = True
        else:
            self._away = False

    async def _write(self, streams: Iterable[LiveStream]) -> None:
        """Frames, and now and then that this process lives, as long as a stream of it goes on."""
        now = asyncio.get_running_loop().time()
        says_alive = now - self._said_alive > ALIVE_SECONDS / 3
        if not streams and not says_alive:
            return
        pipeline = self._client.pipeline(transaction=False)
        if says_alive:
            pipeline.set(f"llmhub:live:alive:{PROCESS}", "1", ex=ALIVE_SECONDS)
        written = [(stream, stream.over, self._add(pipeline, stream)) for stream in streams]
        await pipeline.execute()
        self._said_alive = now if says_alive else self._said_alive
        for stream, over, end in written:
            self._written[stream] = end
            if over:
                del self._written[stream]

    def _add(self, pipeline: Any, stream: LiveStream) -> int:
        """Add what is not written of a stream; the number of the frame after that."""
        name = f"llmhub:live:{stream.id}"
        first = self._written.get(stream)
        if first is None:
            first = 0
            facts = {"owner": orjson.dumps(stream.owner), "process": PROCESS, "client_id": stream.client_id}
            pipeline.hset(f"{name}:owner", mapping=facts)
            pipeline.expire(f"{name}:owner", KEPT_SECONDS)
        first = max(first, stream.record.first)
        reader = stream.record.reader(first)
        frames = stream.record.take(reader)
        reader.leave()
        if frames:
            pipeline.xadd(name, {"first": first, "frames": "\n".join(frames), "last": int(stream.over)})
            pipeline.expire(name, KEPT_SECONDS)
            pipeline.expire(f"{name}:owner", KEPT_SECONDS)
        return first + len(frames)


class RemoteStream:
    """A stream that another process makes, read from Redis."""

    def __init__(self, stream_id: str, client_id: str, process: str) -> None:
        self.id = stream_id
        self.client_id = client_id
        self._process = process

    @classmethod
    async def find(cls, stream_id: str, owner: Owner) -> "RemoteStream | None":
        """None where there is none, or it is somebody else's. Raises UnavailableError."""
        if not settings.REDIS_URL or not stream_id.isalnum() or len(stream_id) > 64:
            return None
        try:
            async with asyncio.timeout(FIND_SECONDS):
                facts = await _facts(stream_id)
        except AWAY as error:
            logger.warning("a stream could not be looked up in Redis: %s", error)
            raise UnavailableError(
                "Streams of the hub's other processes cannot be looked up now. Try again shortly.",
                reason="hub_unavailable",
                retry_after=PAUSE_SECONDS,
            ) from error
        if not facts or orjson.loads(facts[b"owner"]) != list(owner):
            return None
        return cls(stream_id, facts[b"client_id"].decode(), facts[b"process"].decode())

    async def frames(self, place: int) -> AsyncGenerator[list[str], None]:
        """Frames from number `place` on, as they come; where their process is gone, the last one says so.

        Raises InvalidRequestError where the stream has ended before `place`.
        """
        reading = self._reading()
        async for first, frames, last in reading:
            if first > place:
                yield [self._lost(place, "parts of it are gone.")]
                return
            if new := frames[place - first :]:
                place = first + len(frames)
                yield new
            if last:
                if place > first + len(frames):
                    raise InvalidRequestError("The stream has no such frame.", param="last_seq")
                return
        yield [self._lost(place, "the process that made it is gone, or cannot be reached.")]

    async def _reading(self) -> AsyncGenerator[tuple[int, list[str], bool], None]:
        """Entries as they come: the number of the first frame, frames, whether they are the last.

        It ends where nobody makes them any more, or Redis stays away.
        """
        at, said = "0", float("-inf")
        loop = asyncio.get_running_loop()
        heard = loop.time()  # of Redis
        while loop.time() - heard < AWAY_SECONDS:
            if loop.time() - said > LEASE_SECONDS / 3:
                said = loop.time()
                await control.tell({"type": "live.read", "stream": self.id})
            try:
                entries = await self._entries(at)
                if not entries and not await self._is_made():
                    return
            except AWAY as error:
                logger.warning("a stream could not be read from Redis: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            heard = loop.time()
            for name, entry in entries:
                at = name
                frames = entry[b"frames"].decode().split("\n")
                yield int(entry[b"first"]), frames, entry[b"last"] == b"1"

    async def cancel(self) -> None:
        await control.tell({"type": "live.cancel", "stream": self.id})

    def _lost(self, place: int, why: str) -> str:
        facts = {"type": "error", "id": self.client_id, "stream": self.id, "seq": place}
        return orjson.dumps({**facts, **lost(why)}).decode()

    async def _entries(self, at: str) -> list[Any]:
        name, block = f"llmhub:live:{self.id}", int(BLOCK_SECONDS * 1000)
        found = await client().xread({name: at}, count=MOST_ENTRIES, block=block)
        return found[0][1] if found else []

    async def _is_made(self) -> bool:
        """Whether its process lives, and still writes it."""
        names = f"llmhub:live:alive:{self._process}", f"llmhub:live:{self.id}:owner"
        return bool(await client().exists(*names) == len(names))


async def _facts(stream_id: str) -> Any:
    """Of a stream; waited for a moment: one that has just begun is not written yet."""
    name = f"llmhub:live:{stream_id}:owner"
    for _ in range(LOOKS):
        if facts := await client().hgetall(name):
            return facts
        await asyncio.sleep(WRITE_SECONDS * 2)
    return await client().hgetall(name)


def _client() -> Any:
    return Redis.from_url(
        settings.REDIS_URL,
        protocol=2,
        socket_connect_timeout=1.0,
        socket_timeout=BLOCK_SECONDS + 3,
        retry=Retry(NoBackoff(), 1),
    )


_mirrors = PerLoop(RedisMirror)
_clients: PerLoop[Any] = PerLoop(_client)
client = _clients.get


def mirror() -> Mirror | None:
    """The running loop's; None without Redis."""
    return _mirrors.get() if settings.REDIS_URL else None


async def aclose() -> None:
    """Write what is not written, and disconnect the running loop."""
    if (writer := _mirrors.pop()) is not None:
        await writer.aclose()
    if (found := _clients.pop()) is not None:
        await found.aclose()
