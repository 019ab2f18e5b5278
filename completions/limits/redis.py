"""Limits counted in Redis, by all processes together.

A call that runs holds its slot by a lease, renewed while its grant lives: the slots of a process that died
are free after LEASE_SECONDS. While Redis is away the process counts for itself (each then allows the whole
limit). Slots of calls that still run are entered again by the next renewal, even if Redis came back empty.
"""

import asyncio
import hashlib
import itertools
import secrets
import weakref
from pathlib import Path
from typing import Any

from completions.limits.bucket import UNLIMITED, Grant, Limits, refusal
from completions.limits.memory import MemoryLimiter
from completions.round_trips import PAUSE_SECONDS, Away, RoundTrips

SCRIPT = (Path(__file__).parent / "script.lua").read_text()
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # the name EVALSHA knows it by

LEASE_SECONDS = 120.0
RENEWALS = 3  # per lease: two may fail


class RedisLimiter:
    """Limits shared through Redis. It belongs to the loop of its first use; close it there with `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        fallback: MemoryLimiter | None = None,
        prefix: str = "llmhub:limits",
        lease_seconds: float = LEASE_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._fallback = fallback or MemoryLimiter()
        self._prefix = prefix
        self._lease_seconds = lease_seconds
        self._trips = RoundTrips(
            url,
            pause_seconds=pause_seconds,
            script=SCRIPT,
            loss="this process counts rate limits for itself",
            gain="rate limits are counted by all processes together",
        )
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._held: weakref.WeakValueDictionary[str, Grant] = weakref.WeakValueDictionary()
        self._renewal: asyncio.TimerHandle | None = None

    async def acquire(self, subject: str, limits: Limits, tokens: int) -> Grant:
        """Leave for one call of about `tokens` tokens. Raises LimitExceeded, having charged nothing."""
        rpm, tpm, concurrent = limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent
        if rpm is None and tpm is None and concurrent is None:
            return UNLIMITED
        if not self._trips.reachable():
            return await self._fallback.acquire(subject, limits, tokens)
        tokens = max(tokens, 0)
        slot = "" if concurrent is None else f"{self._name}:{next(self._numbers)}"
        lease = self._lease_milliseconds
        trip = self._send(subject, "acquire", rpm or 0, tpm or 0, concurrent or 0, tokens, slot, lease)
        try:
            reply = await asyncio.shield(trip)
        except Away:
            return await self._fallback.acquire(subject, limits, tokens)
        except asyncio.CancelledError:  # the command is on its way: what it takes must go back
            trip.add_done_callback(lambda done: self._give_back(done, subject, limits, tokens, slot))
            raise
        admitted, running, levels, at = _read(reply)
        if not admitted:
            raise refusal(limits, *levels, running, tokens)
        grant = Grant(subject, limits, tokens, at, levels, slot)
        if slot:
            self._hold(grant)
        return grant

    async def release(self, grant: Grant, used_tokens: int | None) -> None:
        """Free the slot and correct the charge to what was used (None: unknown, it stands). Idempotent.

        Never raises for Redis: a slot that could not be freed ends with its lease.
        """
        if grant.released or grant.local:
            return await self._fallback.release(grant, used_tokens)
        grant.released = True
        self._held.pop(grant.slot, None)
        limits = grant.limits
        difference = 0 if limits.tokens_per_minute is None else grant.difference(used_tokens)
        if (not grant.slot and not difference) or not self._trips.reachable():
            return None
        rpm, tpm = limits.requests_per_minute or 0, limits.tokens_per_minute or 0
        trip = self._send(grant.subject, "release", rpm, tpm, difference, f"{grant.at:.0f}", grant.slot)
        try:
            await asyncio.shield(trip)
        except Away:
            pass  # logged where it was noticed
        return None

    def give_back(self, grant: Grant, used_tokens: int | None) -> None:
        """`release` for who does not wait: nobody's answer depends on it."""
        if grant.released or grant.local:
            self._fallback.give_back(grant, used_tokens)
        else:
            self._trips.spawn(self.release(grant, used_tokens))

    async def renew(self) -> None:
        """Prolong the leases of the calls that run here. A timer does it; tests need not wait for that."""
        held = list(self._held.values())
        if not held or not self._trips.reachable():
            return
        lease = self._lease_milliseconds
        trips = [self._send(grant.subject, "renew", grant.slot, lease) for grant in held]
        await asyncio.gather(*trips, return_exceptions=True)

    async def aclose(self) -> None:
        """Stop renewing and disconnect. Slots not released end with their lease."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        await self._trips.aclose()

    @property
    def _lease_milliseconds(self) -> int:
        return int(self._lease_seconds * 1000)

    def _send(self, subject: str, *arguments: str | int) -> asyncio.Future[Any]:
        tag = f"{self._prefix}:{{{subject}}}"  # braces: both keys on one node of a cluster
        return self._trips.send(("EVALSHA", SHA, 2, f"{tag}:bucket", f"{tag}:slots", *arguments))

    def _give_back(
        self, trip: asyncio.Future[Any], subject: str, limits: Limits, tokens: int, slot: str
    ) -> None:
        if trip.cancelled() or trip.exception() is not None:
            return
        admitted, _, levels, at = _read(trip.result())
        if admitted:
            self._trips.spawn(self.release(Grant(subject, limits, tokens, at, levels, slot), 0))

    def _hold(self, grant: Grant) -> None:
        self._held[grant.slot] = grant
        if self._renewal is None:
            self._plan()

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        self._renewal = loop.call_later(self._lease_seconds / RENEWALS, self._renew_on_time)

    def _renew_on_time(self) -> None:
        self._renewal = None
        if self._held:
            self._trips.spawn(self.renew())
            self._plan()


def _read(reply: Any) -> tuple[bool, int, tuple[float, float], float]:
    """Admitted, calls running before, levels, time: what script.lua's acquire returns."""
    admitted, running, text = reply
    requests, tokens, at = text.split()
    return admitted == 1, running, (float(requests), float(tokens)), float(at)
