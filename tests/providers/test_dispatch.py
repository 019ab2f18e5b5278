"""Candidates are tried in order until one begins to answer."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from providers import breaker, dispatch, registry
from providers.dispatch import Dispatch
from providers.errors import (
    ProviderMisconfigured,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamResting,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamTruncated,
)
from providers.models import LLMProvider
from providers.registry import asnapshot
from providers.types import Operation, Target
from tests.factories import make_provider
from tests.fakes import FakeUpstream, refused_url, silent_url
from tests.providers.drivers.calls import Collected, text
from tests.waiting import aeventually

pytestmark = pytest.mark.django_db(transaction=True)

BODY = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def first() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        make_provider(upstream_url=fake.url, slug="first", models=("m",), priority=1)
        yield fake


@pytest.fixture
def second() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        make_provider(upstream_url=fake.url, slug="second", models=("m",), priority=2)
        yield fake


async def candidates() -> tuple[Target, ...]:
    return (await asnapshot()).resolve("m")


def asking(targets: Sequence[Target], **more: Any) -> Dispatch:
    return Dispatch(targets, Operation.CHAT, BODY, **more)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "PAUSE_SECONDS", (0.0, 0.01))


async def test_the_first_candidate_answers_and_no_other_is_called(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    call = asking(await candidates())
    await call.complete()

    assert call.target is not None
    assert (call.target.endpoint.provider, call.attempts) == ("first", 1)
    assert not second.requests


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_a_candidate_that_stays_overloaded_is_tried_twice_and_then_followed_by_the_next(
    first: FakeUpstream, second: FakeUpstream, status: int
) -> None:
    first.refuses(status)
    second.answers("from the second")
    call = asking(await candidates())

    assert (await call.complete()).content == "from the second"
    assert [tried.target.endpoint.provider for tried in call.tried] == ["first", "first", "second"]


async def test_an_overload_that_passes_is_over_with_the_second_try(first: FakeUpstream) -> None:
    first.refuses(503).answers("now")
    call = asking(await candidates())

    assert (await call.complete()).content == "now"
    assert call.attempts == 2


async def test_the_second_try_waits_as_long_as_the_upstream_asked(first: FakeUpstream) -> None:
    first.refuses(429, None, {"retry-after-ms": "300"}).answers("now")
    began = time.monotonic()
    await asking(await candidates()).complete()

    assert time.monotonic() - began >= 0.3


async def test_a_wait_beyond_the_calls_deadline_is_not_begun(first: FakeUpstream) -> None:
    first.refuses(429, None, {"retry-after": "30"})
    began = time.monotonic()
    with pytest.raises(UpstreamRateLimited):
        await asking(await candidates(), timeout_seconds=5).complete()

    assert time.monotonic() - began < 4


async def test_a_long_wait_is_not_begun_while_another_candidate_is_there(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    first.refuses(429, None, {"retry-after": "30"})
    call = asking(await candidates())
    await call.complete()

    assert [tried.target.endpoint.provider for tried in call.tried] == ["first", "second"]
    again = asking(await candidates())
    await again.complete()
    assert [tried.target.endpoint.provider for tried in again.tried] == ["second"]


@pytest.mark.parametrize("fault", ["cuts", "hangs"])
async def test_what_broke_off_or_was_silent_is_not_tried_again_but_followed_by_the_next(
    first: FakeUpstream, second: FakeUpstream, fault: str
) -> None:
    if fault == "cuts":
        first.cuts(after=0)
    else:
        first.hangs()
        await LLMProvider.objects.filter(slug="first").aupdate(first_token_timeout_seconds=0.2)
        await sync_to_async(registry.bump)()
    call = asking(await candidates())
    await call.stream(Collected())

    assert [tried.target.endpoint.provider for tried in call.tried] == ["first", "second"]


async def test_a_refused_connection_is_followed_by_the_next(second: FakeUpstream) -> None:
    with refused_url() as url:
        await sync_to_async(make_provider)(upstream_url=url, slug="dead", models=("m",), priority=1)
        call = asking(await candidates())
        await call.complete()

    assert call.attempts == 2  # nothing was sent to the first: another try there helps nobody


async def test_a_request_that_is_wrong_is_not_tried_again(first: FakeUpstream, second: FakeUpstream) -> None:
    first.refuses(400)
    with pytest.raises(UpstreamRejected):
        await asking(await candidates()).complete()
    assert not second.requests


async def test_when_all_fail_the_last_error_is_raised_and_names_its_provider(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    first.refuses(500)
    second.refuses(503)
    call = asking(await candidates())
    with pytest.raises(UpstreamOverloaded) as caught:
        await call.complete()

    assert caught.value.provider == "second"
    assert len(call.errors) == 4


async def test_a_stream_that_fails_before_its_first_chunk_goes_to_the_next(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    first.events({"error": {"message": "overloaded", "type": "server_error"}})
    second.streams(["a", "b"])
    got = Collected()
    await asking(await candidates()).stream(got)

    assert text(got.chunks) == "ab"


async def test_a_stream_that_fails_after_its_first_chunk_does_not(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    first.cuts(after=1)
    got = Collected()
    with pytest.raises(UpstreamTruncated):
        await asking(await candidates()).stream(got)

    assert text(got.chunks) == "piece0 "
    assert not second.requests


async def cut_off(call: Dispatch, when: Callable[[], bool]) -> None:
    task = asyncio.ensure_future(call.complete())
    assert await aeventually(when)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert type(caught.value) is asyncio.CancelledError


async def test_one_that_is_cut_off_while_it_connects_was_never_sent() -> None:
    with silent_url() as url:
        await sync_to_async(make_provider)(upstream_url=url, slug="silent", models=("m",))
        call = asking(await candidates())
        await cut_off(call, lambda: bool(call.tried))

    assert [(tried.sent, tried.error) for tried in call.tried] == [(False, None)]


async def test_one_that_is_cut_off_later_was_sent(first: FakeUpstream) -> None:
    first.hangs("headers")
    call = asking(await candidates())
    await cut_off(call, lambda: bool(first.requests))

    assert [(tried.sent, tried.error) for tried in call.tried] == [(True, None)]


class TestCircuit:
    async def test_an_upstream_that_keeps_failing_is_left_alone(self, first: FakeUpstream) -> None:
        first.refuses(500)
        await fail(3)
        with pytest.raises(UpstreamResting) as caught:
            await asking(await candidates()).complete()

        assert len(first.requests) == 6
        assert 0 < caught.value.retry_after <= breaker.REST_SECONDS

    async def test_the_next_candidate_takes_its_calls_at_once(
        self, first: FakeUpstream, second: FakeUpstream
    ) -> None:
        first.refuses(500)
        for _ in range(4):
            call = asking(await candidates())
            await call.complete()

        assert [tried.target.endpoint.provider for tried in call.tried] == ["second"]

    async def test_after_a_rest_one_call_tries_it_and_closes_the_circuit(
        self, first: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first.refuses(500)
        await fail(3)
        later = time.monotonic() + breaker.REST_SECONDS + 1
        monkeypatch.setattr(breaker, "monotonic", lambda: later)
        first.answers("back")
        first._scripts.popleft()

        assert (await asking(await candidates()).complete()).content == "back"
        assert list(breaker.circuits()) == []

    async def test_what_the_caller_did_wrong_opens_nothing(self, first: FakeUpstream) -> None:
        first.refuses(400)
        for _ in range(breaker.FAILURES + 1):
            with pytest.raises(UpstreamRejected):
                await asking(await candidates()).complete()

    async def test_a_callers_own_deadline_opens_nothing(self, first: FakeUpstream) -> None:
        first.hangs("headers")
        for _ in range(breaker.FAILURES + 1):
            with pytest.raises(UpstreamTimeout):
                await asking(await candidates(), timeout_seconds=0.05).complete()
        assert list(breaker.circuits()) == []

    async def test_a_deadline_that_is_over_before_the_first_try_is_a_timeout(
        self, first: FakeUpstream
    ) -> None:
        call = asking(await candidates(), timeout_seconds=1e-9)
        with pytest.raises(UpstreamTimeout):
            await call.complete()
        assert (call.attempts, first.requests) == (0, [])

    async def test_the_targets_own_deadline_opens_it(self, first: FakeUpstream) -> None:
        await LLMProvider.objects.aupdate(total_timeout_seconds=0.1)
        first.hangs("headers")
        for _ in range(breaker.FAILURES):
            with pytest.raises(UpstreamTimeout):
                await asking(await candidates(), timeout_seconds=30).complete()
        with pytest.raises(UpstreamResting):
            await asking(await candidates()).complete()

    async def test_answers_that_are_too_large_open_nothing(self, first: FakeUpstream) -> None:
        """Who asks for the like could else keep everybody from the model."""
        first.streams(["x" * (1 << 21)])
        for _ in range(breaker.FAILURES + 1):
            with pytest.raises(UpstreamTooLarge):
                await asking(await candidates()).stream(Collected())
        assert list(breaker.circuits()) == []


async def fail(times: int) -> None:
    for _ in range(times):
        with pytest.raises(UpstreamOverloaded):
            await asking(await candidates()).complete()


async def test_a_candidate_whose_key_cannot_be_read_is_passed_over(
    second: FakeUpstream, settings: object
) -> None:
    await sync_to_async(make_provider)(slug="sealed", models=("m",), priority=1, api_key="sk-0123456789")
    settings.LLMHUB_ENCRYPTION_KEYS = ["another key altogether"]  # type: ignore[attr-defined]
    targets = await candidates()
    call = asking(targets)
    await call.complete()

    assert call.attempts == 1
    with pytest.raises(ProviderMisconfigured, match="sealed"):
        await asking(targets[:1]).complete()
