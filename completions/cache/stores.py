"""Where entries lie while they are in use: Django's cache, in this process's memory or in Redis.

Coroutines ask a `Store`: memory directly, Redis through `redis.asyncio`. Code in threads (purges, the loading
at the start) goes through Django's cache framework, to the same keys. What cannot be had is a miss; nothing
here raises for Redis.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import orjson
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.cache import caches
from django.db import DatabaseError, InterfaceError
from redis import RedisError

from completions.cache.entry import Entry, each, unpacked
from completions.cache.memory import MemoryCache
from completions.cache.purges import PURGED_SECONDS, is_purged, joined, purges_of
from completions.errors import UnavailableError
from completions.round_trips import Away, RoundTrips
from providers import database
from providers.loops import PerLoop
from providers.models import RegistryVersion
from providers.refresh import Refresh

logger = logging.getLogger(__name__)

PREFIX = "answer:"
PURGES = "answer-purges"  # what was purged: by its origin for ever, by its keys for PURGED_SECONDS
LEASE = "answer-lease:"
VERSION_ROW = 3  # of RegistryVersion: counts purges, for a process whose cache is its own memory
CHECK_SECONDS = 0.5
LATEST_SECONDS = 0.9

Kept = tuple[str, bytes, float]  # key, packed entry, seconds


class Store(Protocol):
    """Entries by key, for coroutines."""

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        """An entry for each key, None where there is none."""

    async def put(self, kept: Sequence[Kept]) -> None: ...

    async def lease(self, key: str, seconds: float) -> str | None:
        """A token: this process may make the call. None: another one does."""

    async def renew(self, key: str, token: str, seconds: float) -> None: ...

    async def release(self, key: str, token: str) -> None: ...

    async def is_leased(self, key: str) -> bool: ...

    async def aclose(self) -> None: ...


class MemoryStore:
    """This process's own memory. Purges by other processes (a command) are noticed within a second."""

    def __init__(self) -> None:
        self.purges: int | None = None  # that were counted when it was last looked
        self._checked_at = float("-inf")
        self._lock = threading.Lock()
        self._refresh = Refresh(self._compare)
        cache = caches["default"]
        assert isinstance(cache, MemoryCache)  # noqa: S101 - as settings make it without REDIS_URL
        self._cache = cache  # asked for once: `caches` makes another for every task

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        age = time.monotonic() - self._checked_at
        if age >= LATEST_SECONDS:
            try:
                await sync_to_async(self._compare)()
            except (DatabaseError, InterfaceError):
                return [None] * len(keys)  # what was purged meanwhile is not known
        elif age >= CHECK_SECONDS:
            self._refresh.soon()
        return await each(_unpacked, [self._cache.get(PREFIX + key) for key in keys])

    async def put(self, kept: Sequence[Kept]) -> None:
        for key, data, seconds in kept:
            self._cache.set(PREFIX + key, data, seconds)

    async def lease(self, key: str, seconds: float) -> str | None:
        return "only"  # there is no other process

    async def renew(self, key: str, token: str, seconds: float) -> None: ...

    async def release(self, key: str, token: str) -> None: ...

    async def is_leased(self, key: str) -> bool:
        return False

    async def aclose(self) -> None: ...

    def counted(self) -> None:
        """This process purged."""
        with self._lock:
            if self.purges is not None:
                self.purges += 1

    def _compare(self) -> None:
        """Forget all where another process purged."""
        is_news = None
        while is_news is None:
            is_news = self._is_news()
        if is_news:
            _Process.reload()

    def _is_news(self) -> bool | None:
        """None: this process purged while the database was read, so the two cannot be compared."""
        at, known = time.monotonic(), self.purges
        with database.glance():
            purges = _purges_counted()
        with self._lock:
            if _Process.memory is not self:  # another has taken its place
                return False
            if self.purges != known:
                return None
            self.purges, self._checked_at = purges, at
            is_news = known is not None and purges != known
            if is_news:
                self._cache.clear_prefix(PREFIX)
            return is_news


class RedisStore:
    """Redis, shared by all processes. It belongs to the loop of its first use."""

    def __init__(self, url: str) -> None:
        self._trips = RoundTrips(
            url, loss="cached answers are not found", gain="cached answers are found again"
        )
        self._named = caches["default"].make_key

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        names = [self._named(PREFIX + key) for key in keys]
        found = await self._ask("MGET", *names, self._named(PURGES))
        if found is None:
            return [None] * len(keys)
        *data, purges = found
        entries = await each(_unpacked, data)
        if purges is None:
            return entries
        told = purges_of(purges)
        if told is None:
            told = [{"at": time.time()}]
            await self._ask("SET", self._named(PURGES), orjson.dumps(told))
        return [
            None if entry is None or is_purged(key, entry, told) else entry
            for key, entry in zip(keys, entries, strict=True)
        ]

    async def put(self, kept: Sequence[Kept]) -> None:
        named = self._named
        writes = [
            self._ask("SET", named(PREFIX + key), data, "PX", _ms(seconds)) for key, data, seconds in kept
        ]
        await asyncio.gather(*writes)

    async def lease(self, key: str, seconds: float) -> str | None:
        token = secrets.token_hex(8)
        if not self._trips.reachable():
            return token  # nobody can be asked: it makes the call itself
        try:
            taken = await self._ask("SET", self._named(LEASE + key), token, "PX", _ms(seconds), "NX")
        except asyncio.CancelledError:  # the command is on its way: what it takes must go back
            self._trips.spawn(self.release(key, token))
            raise
        return token if taken or not self._trips.reachable() else None

    async def renew(self, key: str, token: str, seconds: float) -> None:
        await self._ask("EVAL", RENEW, 1, self._named(LEASE + key), token, _ms(seconds))

    async def release(self, key: str, token: str) -> None:
        await self._ask("EVAL", RELEASE, 1, self._named(LEASE + key), token)

    async def is_leased(self, key: str) -> bool:
        return bool(await self._ask("EXISTS", self._named(LEASE + key)))

    async def aclose(self) -> None:
        await self._trips.aclose()

    async def _ask(self, *command: str | bytes | int) -> Any:
        """What Redis answers; None while it is away."""
        if not self._trips.reachable():
            return None
        try:
            return await self._trips.send(command)
        except Away:
            return None


def _unpacked(data: bytes | None) -> Entry | None:
    return None if data is None else unpacked(data)


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 1)


RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end"
RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"

_redis: PerLoop["RedisStore"] = PerLoop(lambda: RedisStore(settings.REDIS_URL))


class _Process:
    memory: MemoryStore | None = None
    shared: bool | None = None
    reload: Callable[[], object] = lambda: None


def when_cleared(reload: Callable[[], object]) -> None:
    """Call `reload`, in a thread, after a purge by another process has emptied this one's memory."""
    _Process.reload = staticmethod(reload)


async def aclose() -> None:
    """Close what the running loop keeps open to Redis."""
    if (found := _redis.pop()) is not None:
        await found.aclose()


def store() -> Store:
    """The store of the running loop."""
    if _Process.shared is None:
        _Process.shared = bool(settings.REDIS_URL)
    if _Process.shared:
        return _redis.get()
    if _Process.memory is None:
        _Process.memory = MemoryStore()
    return _Process.memory


def forget() -> None:
    """Begin anew, by the settings of this moment: for tests."""
    _Process.memory = _Process.shared = None


# --- for threads


def put_now(kept: Iterable[Kept]) -> None:
    """`Store.put` for code in threads. Raises UnavailableError."""
    cache = caches["default"]
    if isinstance(cache, MemoryCache):
        for key, data, seconds in kept:
            cache.set(PREFIX + key, data, seconds)
        return
    with _told_if_away():
        client = _client()
        for key, data, seconds in kept:
            client.set(_name(PREFIX + key), data, px=_ms(seconds))


def drop_now(keys: Iterable[str]) -> None:
    """Forget entries. Raises UnavailableError: what could not be dropped would be given again."""
    cache = caches["default"]
    if isinstance(cache, MemoryCache):
        cache.delete_many(PREFIX + key for key in keys)
    elif names := [_name(PREFIX + key) for key in keys]:
        with _told_if_away():
            _client().delete(*names)


def missing_now(keys: Iterable[str]) -> list[str]:
    """Those that are not there. Raises UnavailableError."""
    cache = caches["default"]
    if isinstance(cache, MemoryCache):
        return [key for key in keys if not cache.has_key(PREFIX + key)]
    with _told_if_away():
        client = _client()
        return [key for key in keys if not client.exists(_name(PREFIX + key))]


def reach() -> None:
    """Raises UnavailableError while nothing can be dropped."""
    if not isinstance(caches["default"], MemoryCache):
        with _told_if_away():
            _client().ping()


@contextmanager
def _told_if_away() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise UnavailableError(
            "Redis, where cached answers lie, cannot be reached now. Try again shortly.",
            reason="hub_unavailable",
            retry_after=5,
        ) from error


def tell_purge(selection: Mapping[str, Any]) -> None:
    """Let every process know what is being purged: also what is only about to be written, or has no row.

    Raises UnavailableError.
    """
    if isinstance(caches["default"], MemoryCache):
        return
    name, now = _name(PURGES), time.time()

    def add(pipeline: Any) -> None:
        known = purges_of(pipeline.get(name))
        pipeline.multi()
        pipeline.set(name, orjson.dumps([{"at": now}] if known is None else joined(known, selection, now)))

    with _told_if_away():
        _client().transaction(add, name)


def purged() -> None:
    """Rows were deleted: a process that keeps entries in its own memory is to look at what is left.

    This one need not: what it kept of them was dropped with them.
    """
    RegistryVersion.objects.count_up(VERSION_ROW)
    if _Process.memory is not None:
        _Process.memory.counted()


def purges_seen() -> int | None:
    """How many purges a process that keeps entries in its own memory knows of; None: it did not look yet."""
    return _Process.memory.purges if _Process.memory is not None else None


def purged_meanwhile(kept: Sequence[tuple[str, Entry, int | None]]) -> list[str]:
    """Keys of those that were purged between their storing, when `purges_seen` said the third, and now."""
    if isinstance(caches["default"], MemoryCache):
        purges = _purges_counted()
        return [key for key, _, seen in kept if seen is not None and seen != purges]
    with _told_if_away():
        told = purges_of(_client().get(_name(PURGES)))
    latest = time.time() - PURGED_SECONDS
    return [
        key for key, entry, _ in kept if told is None or entry.stored < latest or is_purged(key, entry, told)
    ]


def _purges_counted() -> int:
    return RegistryVersion.objects.current(VERSION_ROW)


def _client() -> Any:
    from django_redis import get_redis_connection

    return get_redis_connection("default")


def _name(key: str) -> str:
    """The key as Django's cache names it in Redis."""
    return str(caches["default"].make_key(key))
