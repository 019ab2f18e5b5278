"""What a limit is, what a grant holds, and the arithmetic of a bucket. script.lua does the same inside Redis.

A bucket's level is what was used and has not come back: at 0 all is there, at `limit` nothing is left. It
falls by limit/60 a second. A call that used more than its estimate may push it above the limit, at most to
DEBT × limit: so the worst wait is known (two minutes, for a call as large as the limit), whatever a
provider reports.

A refund may only undo a charge that is still in the level. If the bucket was wholly restored since the
charge, time has given the estimate back already, and a refund would give it twice.
"""

import math
from dataclasses import dataclass
from typing import Literal

from completions.errors import RateLimitError
from completions.types import Standing, Standings

MINUTE = 60.0
DEBT = 2.0
EPSILON = 1e-6  # of a request or token: what rounding may add up to
RETRY_AFTER_CAP = 60.0  # seconds
SLOT_WAIT = 1.0  # seconds until another try for a slot is sensible: nobody knows when a running call will end

LimitName = Literal["requests_per_minute", "tokens_per_minute", "concurrent"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may do; None is no limit. Raises ValueError for less than 1: to stop a key, revoke it."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "concurrent"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"{name} is {value}: a limit is at least 1, or none. To stop a key, revoke it."
                )


def standing(limit: int | None, level: float) -> Standing | None:
    """Where a limit stands at a level of use; None where there is no such limit."""
    if limit is None:
        return None
    return Standing(limit, max(0, math.floor(limit - level + EPSILON)), level * MINUTE / limit)


def standings(limits: Limits, requests: float, tokens: float) -> Standings:
    """Where a key stands at its levels of use."""
    return Standings(
        standing(limits.requests_per_minute, requests), standing(limits.tokens_per_minute, tokens)
    )


@dataclass(slots=True, eq=False, weakref_slot=True)
class Grant:
    """Leave to make one call. Keep it until it is released: the slot of a lost grant is freed."""

    subject: str
    limits: Limits
    tokens: int  # charged at admission
    at: float  # by the clock of whoever granted it
    levels: tuple[float, float]  # of requests and tokens, right after admission
    slot: str = ""  # in Redis
    local: bool = False  # counted in the memory of this process
    released: bool = False

    @property
    def standings(self) -> Standings:
        """As of admission."""
        return standings(self.limits, *self.levels)

    def difference(self, used_tokens: int | None) -> int:
        """What was used beyond the charge; negative when less. None: unknown, the charge stands."""
        return 0 if used_tokens is None else max(used_tokens, 0) - self.tokens


UNLIMITED = Grant("", Limits(), 0, 0.0, (0.0, 0.0), released=True)


class LimitExceeded(RateLimitError):
    """A key's own limit refuses the call, and nothing was charged.

    `details`: `limit_name` (a field of Limits), `limit`, `remaining`, `reset_seconds` (not of
    `concurrent`), and `retry_after` (seconds, at most 60) or, for a call larger than the limit itself,
    `permanent: True`: no wait will let it pass.
    """

    def __init__(self, message: str, standings: Standings, **details: object) -> None:
        super().__init__(message, **details)
        self.standings = standings

    @property
    def permanent(self) -> bool:
        return bool(self.details.get("permanent"))


def decayed(level: float, limit: int | None, seconds: float) -> float:
    """The level after a time without use. One above its bound (the limit was lowered) is cut to it."""
    if limit is None or level <= 0:
        return 0.0
    left = min(level, DEBT * limit) - seconds * limit / MINUTE
    return left if left > EPSILON else 0.0


def corrected(level: float, limit: int, difference: float) -> float:
    """The level once a call is known to have used `difference` more (less, if negative) than was charged."""
    level = min(max(level + difference, 0.0), DEBT * limit)
    return level if level > EPSILON else 0.0


def fits(limits: Limits, requests: float, tokens: float, running: int, estimate: int) -> bool:
    """Whether one more call may run, by the levels and the number of calls running before it."""
    rpm, tpm, concurrent = limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent
    return (
        (rpm is None or requests + 1 <= rpm + EPSILON)
        and (tpm is None or tokens + estimate <= tpm + EPSILON)
        and (concurrent is None or running < concurrent)
    )


def refusal(limits: Limits, requests: float, tokens: float, running: int, estimate: int) -> LimitExceeded:
    """Why a call does not fit: of the limits that refuse it, the one that takes longest to yield."""
    stand = standings(limits, requests, tokens)
    waits: dict[LimitName, float] = {}
    if (rpm := limits.requests_per_minute) is not None:
        waits["requests_per_minute"] = (requests + 1 - rpm) * MINUTE / rpm
    if (tpm := limits.tokens_per_minute) is not None:
        waits["tokens_per_minute"] = (tokens + estimate - tpm) * MINUTE / tpm if estimate <= tpm else math.inf
    if (concurrent := limits.concurrent) is not None and running >= concurrent:
        waits["concurrent"] = SLOT_WAIT
    name = max(waits, key=lambda each: waits[each])
    if name == "concurrent":
        return _no_slot(stand, concurrent or 0)
    standing = stand.requests if name == "requests_per_minute" else stand.tokens
    assert standing is not None  # noqa: S101 - a limit that refuses is set
    facts: dict[str, object] = {
        "limit_name": name,
        "limit": standing.limit,
        "remaining": standing.remaining,
        "reset_seconds": round(standing.reset_seconds, 3),
    }
    if math.isinf(waits[name]):
        return LimitExceeded(_too_large(standing.limit, estimate), stand, **facts, permanent=True)
    wait = math.ceil(max(waits[name], 0.001) * 1000) / 1000
    needs = ""
    if name == "tokens_per_minute":
        needs = f" This call needs about {estimate}, {standing.remaining} are left."
    return LimitExceeded(
        f"Rate limit reached: {standing.limit} {name.replace('_', ' ')} for this key.{needs} "
        f"Try again in {duration(wait)}.",
        stand,
        **facts,
        retry_after=min(wait, RETRY_AFTER_CAP),
    )


def _too_large(limit: int, estimate: int) -> str:
    return (
        f"This call needs about {estimate} tokens (its prompt and the most it may generate), more than the "
        f"{limit} tokens per minute of this key: it can never pass. Shorten the prompt, ask for fewer output "
        "tokens, or have the limit raised."
    )


def _no_slot(standings: Standings, limit: int) -> LimitExceeded:
    calls = "call" if limit == 1 else "calls"
    return LimitExceeded(
        f"Rate limit reached: {limit} concurrent {calls} for this key. Try again when one has ended.",
        standings,
        limit_name="concurrent",
        limit=limit,
        remaining=0,
        retry_after=SLOT_WAIT,
    )


def rate_limit_headers(standings: Standings) -> dict[str, str]:
    """The `x-ratelimit-*` headers of an answer, admitted or refused; none for limits that are not set."""
    headers: dict[str, str] = {}
    for name, standing in (("requests", standings.requests), ("tokens", standings.tokens)):
        if standing is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(standing.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(standing.remaining)
            headers[f"x-ratelimit-reset-{name}"] = duration(standing.reset_seconds)
    return headers


NAMES = {
    kind: tuple(f"x-ratelimit-{fact}-{kind}".encode() for fact in ("limit", "remaining", "reset"))
    for kind in ("requests", "tokens")
}


def header_pairs(limits: Limits, levels: tuple[float, float]) -> list[tuple[bytes, bytes]]:
    """`rate_limit_headers` of a key at its levels of use, as they go over a wire."""
    pairs: list[tuple[bytes, bytes]] = []
    bounds = (limits.requests_per_minute, limits.tokens_per_minute)
    for kind, limit, level in zip(NAMES, bounds, levels, strict=True):
        if limit is not None:
            names = NAMES[kind]
            left = max(0, math.floor(limit - level + EPSILON))
            pairs += (
                (names[0], b"%d" % limit),
                (names[1], b"%d" % left),
                (names[2], duration(level * MINUTE / limit).encode()),
            )
    return pairs


def duration(seconds: float) -> str:
    """As OpenAI writes it: '0s', '12ms', '1.5s', '6m0s', '1h2m3s'. Never shorter than it is."""
    milliseconds = max(0, math.ceil(round(seconds * 1000, 3)))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:g}s"
    minutes, whole = divmod(math.ceil(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{whole}s" if hours else f"{minutes}m{whole}s"
