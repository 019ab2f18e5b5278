"""Circuit breakers: an upstream that keeps failing is left alone for a while, then tried by one call.

One per target (a model of a provider), in this process. Closed: calls go through. After FAILURES in a row it
opens for REST_SECONDS; then the next call is its trial, and closes it again or opens it anew. A 429 with a
Retry-After opens nothing: until then the target is tried after others. Times are of the monotonic clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from providers.errors import (
    UpstreamError,
    UpstreamInvalid,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from providers.types import Target

FAILURES = 5
REST_SECONDS = 10.0
COUNTED = (UpstreamUnreachable, UpstreamTimeout, UpstreamOverloaded, UpstreamTruncated, UpstreamInvalid)


class Circuit(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"  # the next call, or the one that runs, decides
    OPEN = "open"


@dataclass(slots=True)
class Breaker:
    """What is known of one target."""

    failures: int = 0  # in a row
    open_until: float = 0.0
    trial: float = 0.0  # when the call that decides began; 0: none runs
    busy_until: float = 0.0  # by the provider's own Retry-After

    def circuit(self, now: float) -> Circuit:
        if self.failures < FAILURES:
            return Circuit.CLOSED
        return Circuit.OPEN if now < self.open_until else Circuit.HALF_OPEN

    def rest(self, now: float) -> float:
        """Seconds that the target is to be left alone; 0: it may be called."""
        circuit = self.circuit(now)
        if circuit is Circuit.OPEN:
            return self.open_until - now
        tried_of_late = circuit is Circuit.HALF_OPEN and now - self.trial < REST_SECONDS
        return self.trial + REST_SECONDS - now if tried_of_late else 0.0


_breakers: dict[tuple[str, str], Breaker] = {}


def order(targets: Sequence[Target]) -> list[Target]:
    """The targets that may be called now: as given, those that asked for a pause last."""
    if not _breakers:
        return list(targets)
    now = monotonic()
    known = [(target, _breakers.get(_name(target))) for target in targets]
    ready = [(target, one) for target, one in known if one is None or not one.rest(now)]
    return [
        target
        for target, _ in sorted(ready, key=lambda pair: pair[1] is not None and now < pair[1].busy_until)
    ]


def rest(targets: Sequence[Target]) -> float:
    """Seconds until the first of `targets` may be called."""
    now = monotonic()
    return min((one.rest(now) for target in targets if (one := _breakers.get(_name(target)))), default=0.0)


def begun(target: Target) -> None:
    """A call is on its way: where the circuit is half open, it is the trial."""
    if (one := _breakers.get(_name(target))) is not None and one.failures >= FAILURES:
        one.trial = monotonic()


def succeeded(target: Target) -> None:
    """It answered: nothing is held against it."""
    if _breakers:
        _breakers.pop(_name(target), None)


def failed(target: Target, error: UpstreamError) -> None:
    """Note a fault. What the caller did wrong is none, and our key being refused does not pass by waiting."""
    now = monotonic()
    if isinstance(error, UpstreamRateLimited):
        if error.retry_after:
            _breakers.setdefault(_name(target), Breaker()).busy_until = now + error.retry_after
        return
    if not isinstance(error, COUNTED):
        return
    one = _breakers.setdefault(_name(target), Breaker())
    one.failures += 1
    one.trial = 0.0
    if one.failures >= FAILURES:
        one.open_until = now + REST_SECONDS


def abandoned(target: Target) -> None:
    """The call ended without telling anything of the target: another may be its trial."""
    if (one := _breakers.get(_name(target))) is not None:
        one.trial = 0.0


def circuits() -> Iterator[tuple[str, str, Circuit]]:
    """Provider, model and circuit of every target that something is held against."""
    now = monotonic()
    for (provider, model), one in list(_breakers.items()):
        yield provider, model, one.circuit(now)


def forget() -> None:
    """Hold nothing against anybody."""
    _breakers.clear()


def _name(target: Target) -> tuple[str, str]:
    return target.endpoint.provider, target.upstream_model
