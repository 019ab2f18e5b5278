"""Limits of a key: requests per minute, tokens per minute, concurrent calls; all taken in one atomic step.

    grant = await limiter().acquire(subject, limits, estimate)     raises LimitExceeded, a RateLimitError
    …                                                              rate_limit_headers(grant.standings)
    await limiter().release(grant, used_tokens)                    once the call has ended, however it ended

Each rate is a token bucket: it holds one minute's worth and refills without steps. So a burst may use the
whole minute at once, no window boundary lets two bursts through, and one number says both what remains and
when all of it is back (what `x-ratelimit-reset-*` means). An estimate is charged at admission, corrected at
release.

With `REDIS_URL` all processes share one count. While Redis is away each process counts for itself.
"""

import asyncio
import weakref
from typing import ClassVar

from django.conf import settings

from completions.limits.bucket import (
    UNLIMITED,
    Grant,
    LimitExceeded,
    Limits,
    duration,
    header_pairs,
    rate_limit_headers,
)
from completions.limits.memory import MemoryLimiter
from completions.limits.redis import RedisLimiter
from completions.types import Standing, Standings

__all__ = (
    "UNLIMITED",
    "Grant",
    "LimitExceeded",
    "Limits",
    "MemoryLimiter",
    "RedisLimiter",
    "Standing",
    "Standings",
    "aclose",
    "duration",
    "forget",
    "header_pairs",
    "limiter",
    "rate_limit_headers",
)


Loops = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, RedisLimiter]


class _Process:
    """What this process counts by. A connection to Redis belongs to the loop it was opened on."""

    redis_url: str | None = None  # as the settings say; read once, for they are slow to ask
    memory = MemoryLimiter()
    by_loop: ClassVar[Loops] = weakref.WeakKeyDictionary()


def limiter() -> MemoryLimiter | RedisLimiter:
    """The limiter of the running loop."""
    if _Process.redis_url is None:
        _Process.redis_url = settings.REDIS_URL
    if not _Process.redis_url:
        return _Process.memory
    loop = asyncio.get_running_loop()
    found = _Process.by_loop.get(loop)
    if found is None:
        found = _Process.by_loop[loop] = RedisLimiter(_Process.redis_url, fallback=_Process.memory)
    return found


async def aclose() -> None:
    """Close what the running loop keeps open to Redis: when the process, or the loop, stops."""
    if (found := _Process.by_loop.pop(asyncio.get_running_loop(), None)) is not None:
        await found.aclose()


def forget() -> None:
    """Count from zero again in this process, by the settings of this moment: for tests."""
    _Process.memory = MemoryLimiter()
    _Process.redis_url = None
