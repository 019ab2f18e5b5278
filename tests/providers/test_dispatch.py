"""Candidates are tried in order until one begins to answer."""

from collections.abc import Iterator

import pytest

from providers.dispatch import Dispatch
from providers.errors import ProviderMisconfigured, UpstreamOverloaded, UpstreamRejected, UpstreamTruncated
from providers.registry import asnapshot
from providers.types import Target
from tests.factories import make_provider
from tests.fakes import FakeUpstream, refused_url

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


async def test_the_first_candidate_answers_and_no_other_is_called(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    call = Dispatch(await candidates(), BODY)
    await call.complete()

    assert call.target is not None
    assert (call.target.endpoint.provider, call.attempts) == ("first", 1)
    assert not second.requests


async def test_an_overloaded_candidate_is_followed_by_the_next(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    first.refuses(503)
    second.answers("from the second")
    call = Dispatch(await candidates(), BODY)

    assert (await call.complete()).content == "from the second"
    assert call.attempts == 2


async def test_a_refused_connection_is_followed_by_the_next(second: FakeUpstream) -> None:
    with refused_url() as url:
        from asgiref.sync import sync_to_async

        await sync_to_async(make_provider)(upstream_url=url, slug="dead", models=("m",), priority=1)
        call = Dispatch(await candidates(), BODY)
        await call.complete()

    assert call.attempts == 2


async def test_a_request_that_is_wrong_is_not_tried_again(first: FakeUpstream, second: FakeUpstream) -> None:
    first.refuses(400)
    with pytest.raises(UpstreamRejected):
        await Dispatch(await candidates(), BODY).complete()
    assert not second.requests


async def test_when_all_fail_the_last_error_is_raised_and_names_its_provider(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    first.refuses(500)
    second.refuses(503)
    call = Dispatch(await candidates(), BODY)
    with pytest.raises(UpstreamOverloaded) as caught:
        await call.complete()

    assert caught.value.provider == "second"
    assert len(call.errors) == 2


async def test_a_stream_that_fails_before_its_first_chunk_goes_to_the_next(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    first.events({"error": {"message": "overloaded", "type": "server_error"}})
    second.streams(["a", "b"])
    chunks = [chunk.content async for chunk in Dispatch(await candidates(), BODY).stream()]

    assert "".join(chunks) == "ab"


async def test_a_stream_that_fails_after_its_first_chunk_does_not(
    first: FakeUpstream, second: FakeUpstream
) -> None:
    first.cuts(after=1)
    chunks = Dispatch(await candidates(), BODY).stream()

    assert (await anext(chunks)).content == "piece0 "
    with pytest.raises(UpstreamTruncated):
        await anext(chunks)
    assert not second.requests


async def test_a_candidate_whose_key_cannot_be_read_is_passed_over(
    second: FakeUpstream, settings: object
) -> None:
    from asgiref.sync import sync_to_async

    await sync_to_async(make_provider)(slug="sealed", models=("m",), priority=1, api_key="sk-0123456789")
    settings.LLMHUB_ENCRYPTION_KEYS = ["another key altogether"]  # type: ignore[attr-defined]
    targets = await candidates()
    call = Dispatch(targets, BODY)
    await call.complete()

    assert call.attempts == 1
    with pytest.raises(ProviderMisconfigured, match="sealed"):
        await Dispatch(targets[:1], BODY).complete()
