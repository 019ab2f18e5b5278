"""What a provider's own headers last said about its limits. Nothing is invented: None where it never said.

Headers read: OpenAI and most others, `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`
(https://platform.openai.com/docs/guides/rate-limits); Anthropic, `anthropic-ratelimit-{requests,tokens}-...`
(https://docs.anthropic.com/en/api/rate-limits); plain `x-ratelimit-{limit,remaining,reset}`; `retry-after`.
"""

import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.core.cache import cache

from providers.retry_after import retry_after
from providers.types import RateLimit, RateLimits

MIRROR_SECONDS = 1.0  # between two writes of one provider to the shared cache
KEPT_SECONDS = 86_400
EPOCH_ABOVE = 10**9  # a reset this great is a point in time, a smaller one a duration
UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|d|h|m|s))+")
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")

FACTS = ("limit", "remaining", "reset")
SAYING = frozenset(  # the headers that `read` understands
    [
        *(f"x-ratelimit-{fact}" for fact in FACTS),
        *(f"x-ratelimit-{fact}-{kind}" for fact in FACTS for kind in ("requests", "tokens")),
        *(f"anthropic-ratelimit-{kind}-{fact}" for fact in FACTS for kind in ("requests", "tokens")),
        "retry-after",
        "retry-after-ms",
    ]
)

_heard: dict[str, tuple[float, Mapping[str, str]]] = {}  # provider slug: (when, what it said)
_lock = threading.Lock()
_unmirrored: set[str] = set()
_mirror: threading.Thread | None = None


def read(headers: Mapping[str, str], *, at: datetime | None = None) -> RateLimits | None:
    """The limits that `headers` (lower-case names) state; durations count from `at` (now). None: none."""
    now = at or datetime.now(UTC)
    requests = _limit(headers, "requests", now) or _plain(headers, now)
    tokens = _limit(headers, "tokens", now)
    wait = retry_after(headers)
    if requests is None and wait is not None:
        requests = RateLimit(limit=None, remaining=None, reset=now + timedelta(seconds=wait))
    return RateLimits(requests, tokens) if requests or tokens else None


def remember(provider: str, headers: Mapping[str, str]) -> None:
    """Keep what an answer's headers said; cheap, for every answer. Redis shares it with other processes."""
    if not SAYING.isdisjoint(headers):
        _heard[provider] = (time.time(), headers)
        if settings.REDIS_URL:
            _share(provider)


def last(provider: str) -> RateLimits | None:
    """What the provider last said, to this process or (with Redis) to any other."""
    known = _heard.get(provider)
    if settings.REDIS_URL:
        shared = cache.get(_key(provider))
        if shared is not None and (known is None or shared[0] > known[0]):
            known = shared
    if known is None:
        return None
    when, headers = known
    return read(headers, at=datetime.fromtimestamp(when, UTC))


def forget() -> None:
    """Forget what this process has heard."""
    _heard.clear()


def _limit(headers: Mapping[str, str], kind: str, now: datetime) -> RateLimit | None:
    for names in (
        [f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset")],
        [f"anthropic-ratelimit-{kind}-{what}" for what in ("limit", "remaining", "reset")],
    ):
        if found := _of(headers, names, now):
            return found
    return None


def _plain(headers: Mapping[str, str], now: datetime) -> RateLimit | None:
    return _of(headers, ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"], now)


def _of(headers: Mapping[str, str], names: list[str], now: datetime) -> RateLimit | None:
    limit, remaining, reset = (headers.get(name, "").strip() for name in names)
    found = RateLimit(_count(limit), _count(remaining), _moment(reset, now))
    return None if found == RateLimit(None, None, None) else found


def _count(text: str) -> int | None:
    match = re.match(r"(\d{1,15})(?:\.0+)?(?:$|[,;\s])", text)  # "100, 100;w=60" states its limit first
    return int(match[1]) if match else None


def _moment(text: str, now: datetime) -> datetime | None:
    """A reset as vendors write it: 6m0s, 12ms, seconds, epoch seconds or milliseconds, or ISO 8601."""
    try:
        if DURATION.fullmatch(text):
            parts = DURATION_PART.findall(text)
            return now + timedelta(seconds=sum(float(number) * UNITS[unit] for number, unit in parts))
        if re.fullmatch(r"\d+(\.\d+)?", text):
            number = float(text)
            if number < EPOCH_ABOVE:
                return now + timedelta(seconds=number)
            return datetime.fromtimestamp(number / 1000 if number > EPOCH_ABOVE * 100 else number, UTC)
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _share(provider: str) -> None:
    """Hand the provider to the mirror thread: no answer waits for Redis."""
    global _mirror
    with _lock:
        _unmirrored.add(provider)
        if _mirror is None:
            _mirror = threading.Thread(target=_mirror_all, name="rate-limit-mirror", daemon=True)
            _mirror.start()


def _mirror_all() -> None:
    """Write what changed, at most once in MIRROR_SECONDS and the last word always; end when nothing did."""
    global _mirror
    while True:
        with _lock:
            providers = set(_unmirrored)
            _unmirrored.clear()
            if not providers:
                _mirror = None
                return
        for provider in providers:
            if (known := _heard.get(provider)) is not None:
                when, headers = known
                said = {
                    name: value for name, value in headers.items() if "ratelimit" in name or "retry" in name
                }
                cache.set(_key(provider), (when, said), KEPT_SECONDS)
        time.sleep(MIRROR_SECONDS)


def _key(provider: str) -> str:
    return f"provider-rate-limits:{provider}"
