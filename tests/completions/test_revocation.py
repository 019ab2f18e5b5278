"""Running calls end when their key is revoked or expires, or their project is disabled."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from completions import keys, revocation
from completions.errors import LLMServiceError
from completions.models import ApiKey, Project
from tests.factories import make_key

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 5.0  # within which a call of a revoked key ends


class Call:
    """A running call, as far as revocation knows one."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[LLMServiceError] = asyncio.get_running_loop().create_future()

    async def fail(self, error: LLMServiceError) -> None:
        self.ended.set_result(error)


@pytest.fixture
async def key(transactional_db: None) -> ApiKey:
    row, _ = await sync_to_async(make_key)()
    return row


def revoke(row: ApiKey) -> None:
    keys.revoke(row)


def expire(row: ApiKey) -> None:
    row.expires_at = timezone.now() - timedelta(seconds=1)
    row.save()


def disable(row: ApiKey) -> None:
    project = Project.objects.get(pk=row.project_id)
    project.enabled = False
    project.save()


def delete(row: ApiKey) -> None:
    row.delete()


@pytest.mark.parametrize(
    ("change", "message"),
    [(revoke, "revoked"), (expire, "expired"), (disable, "disabled"), (delete, "revoked")],
)
async def test_a_running_call_ends_within_seconds_and_is_told_why(
    key: ApiKey, change: Callable[[ApiKey], Any], message: str
) -> None:
    call, number = Call(), key.pk
    revocation.watch(call, number)
    await asyncio.sleep(0.1)
    await sync_to_async(change)(key)
    error = await asyncio.wait_for(call.ended, SECONDS)
    assert (error.status, error.code) == (401, "AUTHENTICATION_FAILED")
    assert message in error.message
    revocation.unwatch(call, number)


async def test_a_key_that_expires_while_it_is_watched_ends_its_calls(key: ApiKey) -> None:
    key.expires_at = timezone.now() + timedelta(seconds=1.5)
    await sync_to_async(key.save)()
    call = Call()
    revocation.watch(call, key.pk)
    await asyncio.wait_for(call.ended, SECONDS)


async def test_calls_of_other_keys_and_of_nobody_go_on(key: ApiKey) -> None:
    other, _ = await sync_to_async(make_key)(key.project, "other")
    mine, theirs, python = Call(), Call(), Call()
    revocation.watch(mine, key.pk)
    revocation.watch(theirs, other.pk)
    revocation.watch(python, None)
    await sync_to_async(keys.revoke)(key)
    await asyncio.wait_for(mine.ended, SECONDS)
    assert not theirs.ended.done()
    assert not python.ended.done()
    revocation.unwatch(theirs, other.pk)


async def test_a_call_that_has_ended_is_left_alone(key: ApiKey) -> None:
    call, running = Call(), Call()
    for each in (call, running):
        revocation.watch(each, key.pk)
    revocation.unwatch(call, key.pk)
    revocation.unwatch(call, key.pk)
    await sync_to_async(keys.revoke)(key)
    await asyncio.wait_for(running.ended, SECONDS)
    assert not call.ended.done()


async def test_one_settlement_that_waits_does_not_keep_the_others_running(key: ApiKey) -> None:
    class Stuck(Call):
        async def fail(self, error: LLMServiceError) -> None:
            await asyncio.Event().wait()

    calls = [Stuck(), Call(), Stuck(), Call()]
    for call in calls:
        revocation.watch(call, key.pk)
    await sync_to_async(keys.revoke)(key)
    await asyncio.wait_for(asyncio.gather(calls[1].ended, calls[3].ended), SECONDS)


async def test_nothing_looks_while_nothing_runs(key: ApiKey) -> None:
    call = Call()
    revocation.watch(call, key.pk)
    revocation.unwatch(call, key.pk)
    watcher = revocation._watchers.get()
    assert watcher.task is not None
    await asyncio.wait_for(watcher.task, SECONDS)
    assert watcher.runs == {}
