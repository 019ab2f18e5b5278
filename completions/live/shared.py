"""Frames through Redis, so that a stream can be read where its call does not run.

    llmhub:live:<stream>          a Redis stream: frames in order, at most one entry per WRITE_SECONDS
    llmhub:live:<stream>:owner    who may read it, and which process makes it
    llmhub:live:alive:<process>   there as long as that process lives

Reading a stream of another process says so to it now and then (`control`), so that it goes on. Redis away:
nothing is mirrored, and who comes back to another process is told that the stream is not known.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from django.conf import settings
from redis.asyncio import Redis
from redis.exceptions import RedisError

from completions import control
from completions.live.stream import LiveStream, Mirror, Owner
from providers.loops import PerLoop

logger = logging.getLogger(__name__)

WRITE_SECONDS = 0.05
ALIVE_SECONDS = 15
KEPT_SECONDS = 600  # of frames in Redis after the last was written
BLOCK_SECONDS = 2.0  # that a reader waits for frames before it looks whether their process lives
LEASE_SECONDS = 25.0  # for which a reader elsewhere speaks; it says so again in time
LOST = {
    "error": {
        "message": "The process that made this stream is gone, and the rest of the answer with it.",
        "type": "api_error",
        "param": None,
        "code": "stream_lost",
    }
}
PROCESS = secrets.token_hex(8)


class RedisMirror:
    """Writes what changed, all streams of the loop together."""

    def __init__(self) -> None:
        self._client: Any = client()
        self._written: dict[str, int] = {}  # by stream: frames that are in Redis
        self._changed: dict[str, LiveStream] = {}
        self._task: asyncio.Task[None] | None = None
        self._said_alive = float("-inf")  # loop time

    def changed(self, stream: LiveStream) -> None:
        self._changed[stream.id] = stream
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write_until_still())

    async def _write_until_still(self) -> None:
        try:
            while self._changed or self._written:
                await asyncio.sleep(WRITE_SECONDS)
                changed, self._changed = self._changed, {}
                try:
                    await self._write(list(changed.values()))
                except (RedisError, OSError) as error:
                    logger.warning("frames could not be mirrored to Redis: %s", error)
        finally:
            self._task = None

    async def _write(self, streams: list[LiveStream]) -> None:
        """Frames, and now and then that this process lives, as long as a stream of it goes on."""
        now = asyncio.get_running_loop().time()
        says_alive = now - self._said_alive > ALIVE_SECONDS / 3
        if not streams and not says_alive:
            return
        pipeline = self._client.pipeline(transaction=False)
        if says_alive:
            self._said_alive = now
            pipeline.set(f"llmhub:live:alive:{PROCESS}", "1", ex=ALIVE_SECONDS)
        for stream in streams:
            name = f"llmhub:live:{stream.id}"
            first = self._written.get(stream.id)
            if first is None:
                facts = {
                    "owner": orjson.dumps(stream.owner),
                    "process": PROCESS,
                    "client_id": stream.client_id,
                }
                pipeline.hset(f"{name}:owner", mapping=facts)
                pipeline.expire(f"{name}:owner", KEPT_SECONDS)
            reader = stream.record.reader(first or stream.record.first)
            first, frames = reader.place, stream.record.take(reader)
            reader.leave()
            if frames:
                entry = {"first": first, "frames": "\n".join(frames), "last": int(stream.over)}
                pipeline.xadd(name, entry)
                pipeline.expire(name, KEPT_SECONDS)
            self._written[stream.id] = first + len(frames)
            if stream.over:
                del self._written[stream.id]
        await pipeline.execute()


class RemoteStream:
    """A stream that another process makes, read from Redis."""

    def __init__(self, stream_id: str, client_id: str, process: str) -> None:
        self.id = stream_id
        self.client_id = client_id
        self._process = process

    @classmethod
    async def find(cls, stream_id: str, owner: Owner) -> "RemoteStream | None":
        """None where there is none, it is somebody else's, or Redis is away."""
        if not settings.REDIS_URL or not stream_id.isalnum() or len(stream_id) > 64:
            return None
        try:
            facts = await client().hgetall(f"llmhub:live:{stream_id}:owner")
        except (RedisError, OSError) as error:
            logger.warning("a stream could not be looked up in Redis: %s", error)
            return None
        if not facts or orjson.loads(facts[b"owner"]) != list(owner):
            return None
        return cls(stream_id, facts[b"client_id"].decode(), facts[b"process"].decode())

    async def frames(self, place: int) -> AsyncGenerator[list[str], None]:
        """Frames from number `place` on, as they come. Where their process is gone, the last one says so."""
        at, said = "0", float("-inf")
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() - said > LEASE_SECONDS / 3:
                said = loop.time()
                await control.tell({"type": "live.read", "stream": self.id})
            try:
                entries = await self._entries(at)
                lost = not entries and not await self._is_made()
            except (RedisError, OSError) as error:
                logger.warning("a stream could not be read from Redis: %s", error)
                entries, lost = [], True
            if lost:
                facts = {"type": "error", "id": self.client_id, "stream": self.id, "seq": place}
                yield [orjson.dumps({**facts, **LOST}).decode()]
                return
            for name, entry in entries:
                at, first = name, int(entry[b"first"])
                frames = entry[b"frames"].decode().split("\n")
                if new := frames[max(place - first, 0) :]:
                    place = first + len(frames)
                    yield new
                if entry[b"last"] == b"1":
                    return

    async def cancel(self) -> None:
        await control.tell({"type": "live.cancel", "stream": self.id})

    async def _entries(self, at: str) -> list[Any]:
        block = int(BLOCK_SECONDS * 1000)
        found = await client().xread({f"llmhub:live:{self.id}": at}, block=block)
        return found[0][1] if found else []

    async def _is_made(self) -> bool:
        return bool(await client().exists(f"llmhub:live:alive:{self._process}"))


_mirrors = PerLoop(RedisMirror)
_clients: PerLoop[Any] = PerLoop(lambda: Redis.from_url(settings.REDIS_URL, protocol=2))
client = _clients.get


def mirror() -> Mirror | None:
    """The running loop's; None without Redis."""
    return _mirrors.get() if settings.REDIS_URL else None


async def aclose() -> None:
    """Disconnect the running loop."""
    _mirrors.pop()
    if (found := _clients.pop()) is not None:
        await found.aclose()
