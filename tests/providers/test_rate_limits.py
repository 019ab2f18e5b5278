"""What providers' own headers say about their limits."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.core.cache import cache
from pytest_django import Settings

from providers import rate_limits
from providers.types import RateLimit, RateLimits
from tests.waiting import eventually

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_heard() -> Iterator[None]:
    rate_limits.forget()
    cache.clear()
    yield
    rate_limits.forget()


def test_openai_states_requests_and_tokens() -> None:
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert rate_limits.read(headers, at=NOW) == RateLimits(
        RateLimit(60, 59, NOW + timedelta(seconds=1)), RateLimit(150000, 149984, NOW + timedelta(minutes=6))
    )


def test_anthropic_states_them_its_own_way() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-23T12:01:00Z",
        "anthropic-ratelimit-tokens-limit": "40000",
        "anthropic-ratelimit-tokens-remaining": "39000",
    }
    assert rate_limits.read(headers, at=NOW) == RateLimits(
        RateLimit(50, 49, NOW + timedelta(minutes=1)), RateLimit(40000, 39000, None)
    )


def test_plain_headers_are_about_requests() -> None:
    headers = {"x-ratelimit-limit": "20, 20;w=60", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "30"}
    expected = RateLimits(RateLimit(20, 3, NOW + timedelta(seconds=30)), None)
    assert rate_limits.read(headers, at=NOW) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12ms", 0.012), ("6m0s", 360), ("1h2m3.5s", 3723.5), ("59.75s", 59.75), ("2", 2), ("1d", 86400)],
)
def test_a_duration_counts_from_the_answer(text: str, seconds: float) -> None:
    limits = rate_limits.read({"x-ratelimit-reset-requests": text}, at=NOW)
    assert limits == RateLimits(RateLimit(None, None, NOW + timedelta(seconds=seconds)), None)


@pytest.mark.parametrize(
    "text", ["1795435260", "1795435260000", "2026-11-23T12:01:00+00:00", "2026-11-23T12:01:00"]
)
def test_a_point_in_time_is_taken_as_it_is(text: str) -> None:
    limits = rate_limits.read({"x-ratelimit-reset": text}, at=NOW)
    assert limits == RateLimits(RateLimit(None, None, NOW + timedelta(minutes=1)), None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"x-ratelimit-limit-requests": "many", "x-ratelimit-reset-requests": "soon"},
        {"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "9" * 400},
    ],
)
def test_nothing_is_invented(headers: dict[str, str]) -> None:
    assert rate_limits.read(headers) is None


def test_retry_after_is_a_reset() -> None:
    expected = RateLimits(RateLimit(None, None, NOW + timedelta(seconds=7)), None)
    assert rate_limits.read({"retry-after": "7"}, at=NOW) == expected


def test_the_last_word_of_each_provider_is_kept() -> None:
    rate_limits.remember("a", {"x-ratelimit-remaining-requests": "2"})
    rate_limits.remember("a", {"x-ratelimit-remaining-requests": "1"})
    rate_limits.remember("a", {"content-type": "application/json"})
    assert rate_limits.last("a") == RateLimits(RateLimit(None, 1, None), None)
    assert rate_limits.last("b") is None


def test_another_process_learns_it_through_the_shared_cache(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = "redis://shared"
    monkeypatch.setattr(rate_limits, "MIRROR_SECONDS", 0.05)
    for remaining in ("3", "2", "1"):
        rate_limits.remember("a", {"x-ratelimit-remaining-requests": remaining})
    assert eventually(lambda: rate_limits._mirror is None, seconds=5)
    rate_limits.forget()  # as in a process that has called nobody
    assert rate_limits.last("a") == RateLimits(RateLimit(None, 1, None), None)
