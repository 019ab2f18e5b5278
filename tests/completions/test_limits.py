"""Limits of a key, counted in memory and in Redis: the same tests over both."""

import asyncio
import gc
import time
import uuid
from collections.abc import AsyncIterator, Callable

import pytest

from completions.errors import RateLimitError
from completions.limits import (
    UNLIMITED,
    Grant,
    LimitExceeded,
    Limits,
    MemoryLimiter,
    RedisLimiter,
    Standing,
    Standings,
    duration,
    rate_limit_headers,
)
from tests.completions.limiting import KEY, LEASE_SECONDS, Limiter, granted, refused

MakeLimiter = Callable[[], Limiter]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[MakeLimiter]:
    """Makes limiters that share one count: in Redis several; in memory there is but one a process."""
    made: list[Limiter] = []
    prefix = f"test:{uuid.uuid4().hex}"

    def memory() -> Limiter:
        if not made:
            made.append(MemoryLimiter())
        return made[0]

    def redis() -> Limiter:
        url = request.getfixturevalue("redis_url")
        made.append(RedisLimiter(url, prefix=prefix, lease_seconds=LEASE_SECONDS))
        return made[-1]

    yield memory if request.param == "memory" else redis
    for each in made:
        await each.aclose()


@pytest.fixture
def counting(make: MakeLimiter) -> Limiter:
    return make()


async def remaining(counting: Limiter, limits: Limits) -> int:
    """Tokens left to a key with a limit so low that nothing comes back during a test."""
    grant = await counting.acquire(KEY, limits, 0)
    assert grant.standings.tokens is not None
    return grant.standings.tokens.remaining


async def used_up(counting: Limiter, limits: Limits, tokens: int) -> LimitExceeded:
    while True:
        try:
            await counting.acquire(KEY, limits, tokens)
        except LimitExceeded as error:
            return error


async def test_of_200_calls_at_once_exactly_as_many_pass_as_are_allowed(counting: Limiter) -> None:
    limits = Limits(requests_per_minute=50)
    answers = await asyncio.gather(
        *(counting.acquire(KEY, limits, 1) for _ in range(200)), return_exceptions=True
    )
    assert sum(isinstance(answer, Grant) for answer in answers) == 50
    assert sum(isinstance(answer, LimitExceeded) for answer in answers) == 150


async def test_two_limiters_share_one_count(make: MakeLimiter) -> None:
    one, other = make(), make()
    limits = Limits(requests_per_minute=3, concurrent=10)
    for counting in (one, other, one):
        await counting.acquire(KEY, limits, 1)
    await refused(other, limits)


async def test_each_key_has_limits_of_its_own(counting: Limiter) -> None:
    limits = Limits(requests_per_minute=1)
    await counting.acquire(KEY, limits, 1)
    await refused(counting, limits)
    await counting.acquire("another-key", limits, 1)


async def test_the_unused_part_of_the_estimate_comes_back(counting: Limiter) -> None:
    limits = Limits(tokens_per_minute=10)
    grant = await counting.acquire(KEY, limits, 9)
    await refused(counting, limits, 2)
    await counting.release(grant, 4)
    assert await remaining(counting, limits) == 6


async def test_an_unknown_use_leaves_the_estimate_charged(counting: Limiter) -> None:
    limits = Limits(tokens_per_minute=10)
    await counting.release(await counting.acquire(KEY, limits, 8), None)
    assert await remaining(counting, limits) == 2


async def test_what_was_used_beyond_the_estimate_is_a_debt(counting: Limiter) -> None:
    limits = Limits(tokens_per_minute=10)
    await counting.release(await counting.acquire(KEY, limits, 2), 15)
    error = await refused(counting, limits, 1)
    assert error.details["remaining"] == 0
    assert error.details["retry_after"] == pytest.approx(36, abs=1)  # 6 tokens at 10 a minute


async def test_a_debt_is_at_most_one_more_minute(counting: Limiter) -> None:
    limits = Limits(tokens_per_minute=10)
    await counting.release(await counting.acquire(KEY, limits, 2), 1_000_000)
    error = await refused(counting, limits, 1)
    assert error.details["reset_seconds"] == pytest.approx(120, abs=1)
    assert error.details["retry_after"] == 60


async def test_releasing_twice_changes_nothing(counting: Limiter) -> None:
    limits = Limits(tokens_per_minute=10, concurrent=2)
    first = await counting.acquire(KEY, limits, 5)
    second = await counting.acquire(KEY, limits, 5)
    await counting.release(first, 3)
    await counting.release(first, 0)
    third = await counting.acquire(KEY, limits, 2)
    assert (await refused(counting, limits, 0)).details["limit_name"] == "concurrent"
    await counting.release(second, 5)
    await counting.release(third, 2)
    assert await remaining(counting, limits) == 0


async def test_a_slot_is_free_once_its_call_has_ended(counting: Limiter) -> None:
    limits = Limits(concurrent=2)
    grants = [await counting.acquire(KEY, limits, 1) for _ in range(2)]
    error = await refused(counting, limits)
    assert (error.details["limit_name"], error.details["limit"]) == ("concurrent", 2)
    await counting.release(grants[0], 1)
    await counting.acquire(KEY, limits, 1)


async def test_the_slot_of_a_lost_grant_frees_itself(counting: Limiter) -> None:
    limits = Limits(concurrent=1)
    grant = await counting.acquire(KEY, limits, 1)
    await refused(counting, limits)
    del grant
    gc.collect()
    await granted(lambda: counting.acquire(KEY, limits, 1))


async def test_a_long_call_keeps_its_slot(counting: Limiter) -> None:
    limits = Limits(concurrent=1)
    grant = await counting.acquire(KEY, limits, 1)
    until = time.monotonic() + 2 * LEASE_SECONDS
    while time.monotonic() < until:
        await refused(counting, limits)
        await asyncio.sleep(0.05)
    await counting.release(grant, 1)
    await counting.acquire(KEY, limits, 1)


@pytest.mark.parametrize(
    ("limits", "tokens", "name"),
    [
        (Limits(requests_per_minute=1, tokens_per_minute=100, concurrent=5), 10, "requests_per_minute"),
        (Limits(requests_per_minute=5, tokens_per_minute=100, concurrent=5), 95, "tokens_per_minute"),
        (Limits(requests_per_minute=5, tokens_per_minute=1000, concurrent=1), 10, "concurrent"),
    ],
)
async def test_a_refusal_by_one_limit_takes_nothing_of_the_others(
    counting: Limiter, limits: Limits, tokens: int, name: str
) -> None:
    first = await counting.acquire(KEY, limits, 10)
    for _ in range(20):
        error = await refused(counting, limits, tokens)
        assert error.details["limit_name"] == name
    assert error.standings.requests is not None
    assert error.standings.tokens is not None
    assert limits.requests_per_minute is not None
    assert limits.tokens_per_minute is not None
    assert error.standings.requests.remaining == limits.requests_per_minute - 1
    assert error.standings.tokens.remaining >= limits.tokens_per_minute - 10
    await counting.release(first, 10)
    free = Limits(concurrent=5)
    for _ in range(5):
        await counting.acquire(f"{KEY}-2", free, 1)


async def test_the_refusal_that_takes_longest_is_the_one_named(counting: Limiter) -> None:
    limits = Limits(requests_per_minute=60, tokens_per_minute=60, concurrent=1)
    grant = await counting.acquire(KEY, limits, 50)
    error = await refused(counting, limits, 50)
    assert error.details["limit_name"] == "tokens_per_minute"
    assert error.details["retry_after"] == pytest.approx(40, abs=1)
    await counting.release(grant, 50)


async def test_a_call_larger_than_the_limit_is_told_that_it_can_never_pass(counting: Limiter) -> None:
    limits = Limits(requests_per_minute=5, tokens_per_minute=1000)
    error = await refused(counting, limits, 1001)
    assert "can never pass" in error.message
    assert "1001" in error.message
    assert "1000 tokens per minute" in error.message
    assert error.permanent
    assert "retry_after" not in error.details
    grant = await counting.acquire(KEY, limits, 1000)
    assert grant.standings.requests == Standing(5, 4, 12)


async def test_a_refusal_is_a_rate_limit_error_that_names_the_limit(counting: Limiter) -> None:
    limits = Limits(requests_per_minute=2)
    await counting.acquire(KEY, limits, 1)
    await counting.acquire(KEY, limits, 1)
    error = await refused(counting, limits)
    assert isinstance(error, RateLimitError)
    assert (error.status, error.code) == (429, "RATE_LIMIT_EXCEEDED")
    assert error.message.startswith("Rate limit reached: 2 requests per minute for this key. Try again in ")
    assert error.details["limit"] == 2
    assert error.details["remaining"] == 0
    assert 29 < error.details["retry_after"] <= 30
    assert 59 < error.details["reset_seconds"] <= 60
    assert not error.permanent


@pytest.mark.parametrize(
    ("limits", "tokens"), [(Limits(requests_per_minute=600), 1), (Limits(tokens_per_minute=60_000), 100)]
)
async def test_who_waits_as_told_is_admitted(counting: Limiter, limits: Limits, tokens: int) -> None:
    for _ in range(3):
        await asyncio.sleep((await used_up(counting, limits, tokens)).details["retry_after"])
        await counting.acquire(KEY, limits, tokens)


async def test_headers_tell_where_requests_and_tokens_stand(counting: Limiter) -> None:
    grant = await counting.acquire(KEY, Limits(requests_per_minute=60, tokens_per_minute=600), 150)
    assert rate_limit_headers(grant.standings) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "450",
        "x-ratelimit-reset-tokens": "15s",
    }


async def test_a_refusal_carries_the_same_headers(counting: Limiter) -> None:
    limits = Limits(requests_per_minute=1)
    await counting.acquire(KEY, limits, 1)
    headers = rate_limit_headers((await refused(counting, limits)).standings)
    assert headers["x-ratelimit-limit-requests"] == "1"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-ratelimit-limit-tokens" not in headers


async def test_a_key_without_limits_is_not_counted(counting: Limiter) -> None:
    grant = await counting.acquire(KEY, Limits(), 10**9)
    assert grant is UNLIMITED
    assert rate_limit_headers(grant.standings) == {}
    await counting.release(grant, 10**9)


async def test_a_changed_limit_applies_to_what_was_used_before(counting: Limiter) -> None:
    await counting.acquire(KEY, Limits(tokens_per_minute=100), 60)
    assert await remaining(counting, Limits(tokens_per_minute=70)) == 10
    await refused(counting, Limits(tokens_per_minute=50))


async def test_a_refund_never_gives_back_what_time_has_given_back(counting: Limiter) -> None:
    limits = Limits(tokens_per_minute=60_000)
    early = await counting.acquire(KEY, limits, 200)
    await asyncio.sleep(0.25)  # 200 tokens come back in 0.2 s: all was there again
    before = time.monotonic()
    await counting.acquire(KEY, limits, 60_000)
    await counting.release(early, 0)
    standing = (await refused(counting, limits, 60_000)).standings.tokens
    assert standing is not None
    assert standing.reset_seconds >= 60 - (time.monotonic() - before)


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrent"])
def test_a_limit_below_one_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Limits(**{name: 0})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9999, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (60.2, "1m1s"),
        (360, "6m0s"),
        (3723, "1h2m3s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_no_limits_make_no_headers() -> None:
    assert rate_limit_headers(Standings()) == {}
