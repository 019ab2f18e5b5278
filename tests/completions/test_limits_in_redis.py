"""Limits in Redis: leases, expiries, cancelled callers, and a Redis that goes away and comes back."""

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings
from redis.asyncio import Redis

from completions import limits as limits_module
from completions.limits import Limits, MemoryLimiter, RedisLimiter, limiter
from completions.round_trips import TRIP_SECONDS
from tests.completions.limiting import KEY, LEASE_SECONDS, granted, refused
from tests.own_redis import PROGRAM, OwnRedis
from tests.own_redis import own_redis as started
from tests.waiting import aeventually


async def test_redis_is_asked_nothing_for_a_key_without_limits() -> None:
    counting = RedisLimiter(f"redis://127.0.0.1:{closed_port()}/0", pause_seconds=60)
    await counting.acquire(KEY, Limits(), 1)
    assert counting._trips.reachable()
    await counting.aclose()


@pytest.mark.redis
async def test_redis_keeps_nothing_of_a_key_for_ever(redis_url: str) -> None:
    prefix = f"test:{uuid.uuid4().hex}"
    counting = RedisLimiter(redis_url, prefix=prefix)
    grant = await counting.acquire(KEY, Limits(10, 10, 10), 1)
    await counting.release(await counting.acquire("rates-only", Limits(10, 10), 1), 5)
    async with Redis.from_url(redis_url) as client:
        keys = [key async for key in client.scan_iter(f"{prefix}*")]
        expiries = [await client.pttl(key) for key in keys]
    assert len(keys) == 3  # levels of both keys, slots of one
    assert all(0 < expiry <= 180_000 for expiry in expiries)
    await counting.release(grant, 1)
    await counting.aclose()


@pytest.mark.redis
async def test_the_slots_of_a_dead_process_are_free_after_their_lease(redis_url: str) -> None:
    prefix = f"test:{uuid.uuid4().hex}"
    limits = Limits(concurrent=1)
    dead, alive = (RedisLimiter(redis_url, prefix=prefix, lease_seconds=LEASE_SECONDS) for _ in range(2))
    grant = await dead.acquire(KEY, limits, 1)
    await dead.aclose()  # nothing renews the lease any more
    await refused(alive, limits)
    await granted(lambda: alive.acquire(KEY, limits, 1))
    assert not grant.released
    await alive.aclose()


@pytest.mark.redis
async def test_a_dead_slot_ends_though_others_of_the_key_go_on(redis_url: str) -> None:
    prefix = f"test:{uuid.uuid4().hex}"
    limits = Limits(concurrent=2)
    dead, alive = (RedisLimiter(redis_url, prefix=prefix, lease_seconds=LEASE_SECONDS) for _ in range(2))
    going_on = await alive.acquire(KEY, limits, 1)
    await dead.acquire(KEY, limits, 1)
    await dead.aclose()
    await refused(alive, limits)
    second = await granted(lambda: alive.acquire(KEY, limits, 1))
    await refused(alive, limits)
    await alive.release(going_on, 1)
    await alive.release(second, 1)
    await alive.aclose()


@pytest.mark.redis
async def test_a_released_slot_is_not_renewed(redis_url: str) -> None:
    counting = RedisLimiter(redis_url, prefix=f"test:{uuid.uuid4().hex}")
    limits = Limits(concurrent=1)
    grant = await counting.acquire(KEY, limits, 1)
    await counting.release(grant, 1)
    await counting.renew()
    await counting.release(await counting.acquire(KEY, limits, 1), 1)
    await counting.aclose()


@pytest.mark.redis
async def test_a_call_cancelled_while_it_is_admitted_leaves_nothing_charged(redis_url: str) -> None:
    counting = RedisLimiter(redis_url, prefix=f"test:{uuid.uuid4().hex}")
    limits = Limits(tokens_per_minute=10, concurrent=1)
    asking = asyncio.create_task(counting.acquire(KEY, limits, 10))
    await asyncio.sleep(0)  # the command is queued
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    grant = await granted(lambda: counting.acquire(KEY, limits, 10))
    await counting.release(grant, 10)
    await counting.aclose()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    if PROGRAM is None:
        pytest.skip("no redis-server on the PATH to start and stop")
    with started(tmp_path) as server:
        yield server


def shared_count(counting: RedisLimiter) -> bool:
    return counting._trips.reachable()


@pytest.mark.redis
async def test_while_redis_is_away_the_process_counts_for_itself_and_says_so_once(
    own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    counting = RedisLimiter(own_redis.url, pause_seconds=0.05)
    limits = Limits(requests_per_minute=5, tokens_per_minute=100, concurrent=1)
    before = await counting.acquire(KEY, limits, 60)
    own_redis.stop()
    with caplog.at_level(logging.WARNING, logger="completions.limits"):
        during = await counting.acquire(KEY, limits, 60)
        assert during.local
        assert (await refused(counting, limits, 60)).details["limit_name"] == "tokens_per_minute"
        for _ in range(5):
            await asyncio.sleep(0.06)
            await refused(counting, limits, 60)
    await counting.release(during, 10)
    await counting.release(before, 10)
    await counting.acquire(KEY, limits, 60)
    assert len(caplog.records) == 1
    assert "Redis does not serve" in caplog.text
    await counting.aclose()


@pytest.mark.redis
@pytest.mark.parametrize("steps", range(8))
async def test_a_process_that_was_busy_itself_does_not_take_redis_for_away(
    own_redis: OwnRedis, steps: int
) -> None:
    counting = RedisLimiter(own_redis.url)
    limits = Limits(concurrent=1)
    await counting.release(await counting.acquire(KEY, limits, 1), 1)
    asking = asyncio.create_task(counting.acquire(KEY, limits, 1))
    for _ in range(steps):
        await asyncio.sleep(0)  # it is queued, sent, answered
    time.sleep(2 * TRIP_SECONDS)  # noqa: ASYNC251 - as what is heavy does; the reply lies there meanwhile
    assert not (await asking).local
    assert shared_count(counting)
    await counting.aclose()


@pytest.mark.redis
async def test_a_redis_that_says_nothing_is_waited_for_no_longer_than_a_trip(own_redis: OwnRedis) -> None:
    counting = RedisLimiter(own_redis.url)
    limits = Limits(concurrent=1)
    await counting.release(await counting.acquire(KEY, limits, 1), 1)
    own_redis.pause()
    began = time.monotonic()
    grant = await counting.acquire(KEY, limits, 1)
    assert time.monotonic() - began < TRIP_SECONDS + 1
    assert grant.local
    await counting.aclose()


@pytest.mark.redis
async def test_a_redis_that_comes_back_is_used_again(own_redis: OwnRedis) -> None:
    counting = RedisLimiter(own_redis.url, pause_seconds=0.05)
    limits = Limits(concurrent=1)
    running = await counting.acquire(KEY, limits, 1)
    own_redis.stop()
    local = await counting.acquire(KEY, limits, 1)
    own_redis.start()
    assert await aeventually(lambda: shared_count(counting))
    await counting.renew()  # it came back empty: the running call is entered again
    await refused(counting, limits)
    await counting.release(local, 1)
    await counting.release(running, 1)
    await counting.release(await counting.acquire(KEY, limits, 1), 1)
    await counting.aclose()


@pytest.mark.redis
async def test_a_redis_restarted_between_calls_costs_no_call_its_shared_count(own_redis: OwnRedis) -> None:
    counting = RedisLimiter(own_redis.url)
    limits = Limits(requests_per_minute=5)
    assert not (await counting.acquire(KEY, limits, 1)).local
    own_redis.stop()
    own_redis.start()
    await asyncio.sleep(0.05)  # the loop was held up: now it sees that the connection is closed
    assert not (await counting.acquire(KEY, limits, 1)).local
    await counting.aclose()


async def test_a_redis_that_hangs_delays_only_the_calls_that_met_it_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        counting = RedisLimiter(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", pause_seconds=0.01)
        limits = Limits(requests_per_minute=1000)
        started = time.monotonic()
        grants = await asyncio.gather(*(counting.acquire(KEY, limits, 1) for _ in range(20)))
        assert time.monotonic() - started < 5
        assert all(grant.local for grant in grants)
        started = time.monotonic()
        for _ in range(100):
            await counting.acquire(KEY, limits, 1)
            await asyncio.sleep(0.001)
        assert time.monotonic() - started < 8  # a probe hangs all the while, and nobody waits for it
        await counting.aclose()


async def test_a_redis_that_refuses_connections_delays_nobody() -> None:
    counting = RedisLimiter(f"redis://127.0.0.1:{closed_port()}/0")
    limits = Limits(requests_per_minute=2)
    await counting.acquire(KEY, limits, 1)
    await counting.acquire(KEY, limits, 1)
    await refused(counting, limits)
    await counting.aclose()


async def test_without_redis_limits_are_counted_in_memory(settings: Settings) -> None:
    assert isinstance(limiter(), MemoryLimiter)
    assert limiter() is limiter()


@pytest.mark.redis
async def test_with_redis_a_loop_has_one_limiter_until_it_is_closed(
    redis_url: str, settings: Settings
) -> None:
    settings.REDIS_URL = redis_url
    first = limiter()
    assert isinstance(first, RedisLimiter)
    assert limiter() is first
    await limits_module.aclose()
    assert limiter() is not first
    await limits_module.aclose()
