"""Limits in memory, by a clock that the test moves, and against a model that counts second by second."""

import asyncio
import math
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from completions.limits import Grant, LimitExceeded, Limits, MemoryLimiter
from completions.limits.memory import IDLE_SECONDS

KEY = "a-key"


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def remaining(counting: MemoryLimiter, limits: Limits) -> int:
    standing = (await counting.acquire(KEY, limits, 0)).standings.tokens
    assert standing is not None
    return standing.remaining


async def test_memory_gives_back_evenly_and_never_more_than_the_limit() -> None:
    clock = Clock()
    counting = MemoryLimiter(clock)
    limits = Limits(tokens_per_minute=60)
    await counting.acquire(KEY, limits, 60)
    clock.now += 10.5
    assert await remaining(counting, limits) == 10
    clock.now += 500
    assert await remaining(counting, limits) == TOKENS


async def test_memory_refunds_no_call_whose_charge_another_refund_has_undone() -> None:
    clock = Clock()
    counting = MemoryLimiter(clock)
    limits = Limits(tokens_per_minute=TOKENS)
    first = await counting.acquire(KEY, limits, 40)
    clock.now += 30
    second = await counting.acquire(KEY, limits, 5)
    clock.now += 1
    await counting.release(first, 0)
    await counting.acquire(KEY, limits, 20)
    await counting.release(second, 0)
    assert await remaining(counting, limits) == TOKENS - 20


async def test_memory_forgets_a_key_that_is_idle_but_never_one_with_a_running_call() -> None:
    clock = Clock()
    counting = MemoryLimiter(clock)
    for number in range(50):
        await counting.acquire(f"key-{number}", Limits(requests_per_minute=1), 1)
    running = await counting.acquire("busy", Limits(concurrent=1), 1)
    clock.now += IDLE_SECONDS + 1
    for _ in range(60):
        await counting.acquire("fresh", Limits(requests_per_minute=1000), 1)
    assert len(counting) == 2
    with pytest.raises(LimitExceeded):
        await counting.acquire("busy", Limits(concurrent=1), 1)
    await counting.release(running, 1)


TOKENS = 60  # a minute: one comes back each second
REQUESTS = 6  # a minute: a tenth of one comes back each second
SLOTS = 3


@dataclass
class Call:
    """A call of the model. `restored`: all tokens were back at some time since it was admitted."""

    grant: Grant
    at: float
    estimate: int
    running: bool = True
    restored: bool = False


class LimitsMachine(RuleBasedStateMachine):
    """The limiter does what whole numbers, moved second by second, say."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.limiter = MemoryLimiter(self.clock)
        self.limits = Limits(REQUESTS, TOKENS, SLOTS)
        self.tokens = 0
        self.tenths = 0  # of requests
        self.calls: list[Call] = []

    @rule(estimate=st.integers(0, TOKENS + 5))
    def acquire(self, estimate: int) -> None:
        running = sum(call.running for call in self.calls)
        waits = {
            "requests_per_minute": max(0, self.tenths + 10 - 10 * REQUESTS),
            "tokens_per_minute": max(0, self.tokens + estimate - TOKENS) if estimate <= TOKENS else math.inf,
            "concurrent": int(running >= SLOTS),
        }
        try:
            grant = asyncio.run(self.limiter.acquire(KEY, self.limits, estimate))
        except LimitExceeded as error:
            self.check_refusal(error, waits)
            return
        assert not any(waits.values())
        self.tokens += estimate
        self.tenths += 10
        self.calls.append(Call(grant, self.clock.now, estimate))
        self.check_levels(grant)

    def check_refusal(self, error: LimitExceeded, waits: dict[str, float]) -> None:
        longest = max(waits.values())
        assert longest
        assert waits[error.details["limit_name"]] == longest
        assert error.permanent == math.isinf(longest)
        if not error.permanent:
            assert error.details["retry_after"] == pytest.approx(min(60, longest), abs=0.002)

    def check_levels(self, grant: Grant) -> None:
        standings = grant.standings
        assert standings.tokens is not None
        assert standings.requests is not None
        assert standings.tokens.remaining == max(0, TOKENS - self.tokens)
        assert standings.tokens.reset_seconds == pytest.approx(self.tokens, abs=0.001)
        assert standings.requests.remaining == (10 * REQUESTS - self.tenths) // 10
        assert standings.requests.reset_seconds == pytest.approx(self.tenths, abs=0.001)

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 100), used=st.one_of(st.none(), st.integers(0, 3 * TOKENS)))
    def release(self, which: int, used: int | None) -> None:
        call = self.calls[which % len(self.calls)]
        asyncio.run(self.limiter.release(call.grant, used))
        if not call.running:
            return
        call.running = False
        difference = 0 if used is None else used - call.estimate
        if not difference or (difference < 0 and call.restored):
            return
        self.tokens = min(max(self.tokens + difference, 0), 2 * TOKENS)
        if self.tokens == 0:
            for each in self.calls:
                each.restored = each.restored or each.at < self.clock.now

    @precondition(lambda self: any(call.running for call in self.calls))
    @rule()
    def lose_a_grant(self) -> None:
        self.calls.remove(next(call for call in self.calls if call.running))

    @rule(seconds=st.integers(1, 90))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds
        for _ in range(seconds):
            self.tokens, self.tenths = max(0, self.tokens - 1), max(0, self.tenths - 1)
            if self.tokens == 0:
                for call in self.calls:
                    call.restored = True

    @invariant()
    def one_key_is_one_account(self) -> None:
        assert len(self.limiter) <= 1


TestLimitsAgainstTheModel = LimitsMachine.TestCase
TestLimitsAgainstTheModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
