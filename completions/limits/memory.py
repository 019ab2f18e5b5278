"""Limits counted in the memory of this process."""

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable

from completions.limits.bucket import MINUTE, UNLIMITED, Grant, Limits, corrected, decayed, fits, refusal

IDLE_SECONDS = 600.0  # far longer than any level lasts: who is forgotten had everything back
DROPPED_AT_ONCE = 2  # idle subjects looked at per acquire: more than one, so that memory shrinks again


class _Account:
    """One subject's levels as of `at`. `full`: when its tokens were last wholly restored."""

    __slots__ = ("at", "full", "requests", "slots", "tokens")

    def __init__(self, now: float) -> None:
        self.at = self.full = now
        self.requests = self.tokens = 0.0
        self.slots: dict[int, weakref.ref[Grant]] = {}

    def advance(self, limits: Limits, now: float) -> None:
        limit, seconds, before = limits.tokens_per_minute, now - self.at, self.tokens
        self.requests = decayed(self.requests, limits.requests_per_minute, seconds)
        self.tokens = decayed(before, limit, seconds)
        if not self.tokens:
            self.full = now if limit is None else min(now, self.at + before * MINUTE / limit)
        self.at = now

    def running(self) -> int:
        """The calls that run. A grant lost without a release (a bug, a killed task) counts no more."""
        self.slots = {key: grant for key, grant in self.slots.items() if grant() is not None}
        return len(self.slots)


class MemoryLimiter:
    """Limits of this process alone, for any thread and any loop: the lock is never held across an await."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: OrderedDict[str, _Account] = OrderedDict()  # longest idle first

    def __len__(self) -> int:
        return len(self._accounts)

    async def acquire(self, subject: str, limits: Limits, tokens: int) -> Grant:
        """Leave for one call of about `tokens` tokens. Raises LimitExceeded, having charged nothing."""
        rpm, tpm, concurrent = limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent
        if rpm is None and tpm is None and concurrent is None:
            return UNLIMITED
        tokens = max(tokens, 0)
        with self._lock:
            now = self._clock()
            self._drop_idle(now)
            account = self._account(subject, limits, now)
            running = 0
            if concurrent is not None and (running := len(account.slots)) >= concurrent:
                running = account.running()
            if not fits(limits, account.requests, account.tokens, running, tokens):
                raise refusal(limits, account.requests, account.tokens, running, tokens)
            if rpm is not None:
                account.requests += 1
            if tpm is not None:
                account.tokens += tokens
            grant = Grant(subject, limits, tokens, now, (account.requests, account.tokens), local=True)
            if concurrent is not None:
                account.slots[id(grant)] = weakref.ref(grant)
        return grant

    async def release(self, grant: Grant, used_tokens: int | None) -> None:
        """`give_back`, for who waits until it is done."""
        self.give_back(grant, used_tokens)

    def give_back(self, grant: Grant, used_tokens: int | None) -> None:
        """Free the slot and correct the charge to what was used (None: unknown, it stands). Idempotent."""
        with self._lock:
            if grant.released:
                return
            grant.released = True
            limit = grant.limits.tokens_per_minute
            account = self._account(grant.subject, grant.limits, self._clock())
            account.slots.pop(id(grant), None)
            difference = grant.difference(used_tokens)
            if limit is None or not difference or (difference < 0 and account.full > grant.at):
                return
            account.tokens = corrected(account.tokens, limit, difference)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _account(self, subject: str, limits: Limits, now: float) -> _Account:
        account = self._accounts.get(subject)
        if account is None:
            account = self._accounts[subject] = _Account(now)
        else:
            self._accounts.move_to_end(subject)
            account.advance(limits, now)
        return account

    def _drop_idle(self, now: float) -> None:
        for _ in range(DROPPED_AT_ONCE):
            subject = next(iter(self._accounts), None)
            if subject is None or now - self._accounts[subject].at < IDLE_SECONDS:
                return
            if self._accounts[subject].running():
                self._accounts.move_to_end(subject)
            else:
                del self._accounts[subject]
