"""Live calls find that a provider refuses our key, or accepts it again: staff see it."""

import asyncio
from collections.abc import Iterator

import pytest
from asgiref.sync import sync_to_async

from providers import health, registry
from providers.dispatch import Dispatch
from providers.errors import UpstreamAuthError
from providers.models import Health, LLMProvider
from providers.registry import asnapshot
from providers.types import Operation, Target
from tests.factories import make_provider
from tests.fakes import FakeUpstream

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        make_provider(upstream_url=fake.url, models=("m",))
        yield fake


async def target() -> Target:
    return (await asnapshot()).resolve("m")[0]


async def call() -> None:
    """A call, and whatever it left to be noted."""
    try:
        await Dispatch([await target()], Operation.CHAT, {"messages": []}).complete()
    except UpstreamAuthError:
        pass
    await asyncio.get_running_loop().shutdown_default_executor()


async def seen() -> tuple[str, str]:
    row = await LLMProvider.objects.aget()
    return row.health, row.health_message


async def set_health(found: Health) -> None:
    await LLMProvider.objects.aupdate(health=found)
    await sync_to_async(registry.bump)()


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_key_is_seen(upstream: FakeUpstream, status: int) -> None:
    upstream.refuses(status)
    await call()

    found, message = await seen()
    assert found == Health.AUTH_FAILED
    assert str(status) in message
    assert (await target()).key_refused


async def test_one_that_is_accepted_again_is_seen_too(upstream: FakeUpstream) -> None:
    await set_health(Health.AUTH_FAILED)
    await call()

    assert (await seen())[0] == Health.OK
    assert not (await target()).key_refused


@pytest.mark.parametrize("found", [Health.UNKNOWN, Health.FAILING, Health.OK])
async def test_a_good_call_says_nothing_of_what_else_is_known(upstream: FakeUpstream, found: Health) -> None:
    await set_health(found)
    health.accepted(await target())  # even one that began when the key was still refused
    await call()

    assert (await seen())[0] == found


async def test_the_same_is_noted_once_in_a_while(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = []
    monkeypatch.setattr(health, "_note", lambda *note: notes.append(note))
    refusal = UpstreamAuthError("refused", status=401)
    refused = await target()

    for _ in range(100):
        health.refused(refused, refusal)
    await asyncio.get_running_loop().shutdown_default_executor()

    assert len(notes) == 1
