"""A key's limits as tests ask for them."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from completions.limits import Grant, LimitExceeded, Limits, MemoryLimiter, RedisLimiter
from tests.waiting import SECONDS, TICK_SECONDS

Limiter = MemoryLimiter | RedisLimiter
KEY = "a-key"
LEASE_SECONDS = 0.4  # short, so that its end can be waited for


async def refused(counting: Limiter, limits: Limits, tokens: int = 1, key: str = KEY) -> LimitExceeded:
    """Acquires what must not be had; gives the refusal."""
    with pytest.raises(LimitExceeded) as caught:
        await counting.acquire(key, limits, tokens)
    return caught.value


async def granted(attempt: Callable[[], Awaitable[Grant]]) -> Grant:
    """What a limit refuses now, and grants before long. Raises the last LimitExceeded."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return await attempt()
        except LimitExceeded:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(TICK_SECONDS)
