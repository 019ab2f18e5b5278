"""The ledger: a committed row before the call, its final state afterwards, once."""

import asyncio
import time
import uuid
from concurrent.futures import Future

import pytest
from django.db import transaction

from completions import ledger
from completions.errors import UnavailableError
from completions.ledger.operations import Settle
from completions.ledger.writer import submit
from completions.models import Completion, State
from completions.types import Caller
from tests.factories import make_project

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def caller() -> Caller:
    project = make_project()
    return Caller(project.pk, project.slug)


def opening(caller: Caller) -> ledger.Opening:
    return ledger.Opening(ledger.new_id(), caller, "test-model", stream=False)


async def state_of(row_id: uuid.UUID) -> str:
    return (await Completion.objects.aget(pk=row_id)).state


async def test_the_row_is_committed_before_the_call_is_made(caller: Caller) -> None:
    begun = opening(caller)
    async with ledger.entry(begun) as entry:
        assert await state_of(begun.id) == State.RUNNING
        entry.final["state"] = State.OK
    assert await state_of(begun.id) == State.OK


async def test_a_call_that_ends_in_an_error_is_settled_all_the_same(caller: Caller) -> None:
    begun = opening(caller)
    with pytest.raises(ZeroDivisionError):
        async with ledger.entry(begun):
            raise ZeroDivisionError
    assert await state_of(begun.id) == State.UPSTREAM_ERROR


async def test_a_cancelled_call_is_settled_before_its_task_ends(caller: Caller) -> None:
    begun = opening(caller)
    inside = asyncio.Event()

    async def call() -> None:
        async with ledger.entry(begun) as entry:
            entry.final["state"] = State.CANCELLED
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await state_of(begun.id) == State.CANCELLED


async def test_a_call_cancelled_while_its_row_is_written_leaves_no_running_row(caller: Caller) -> None:
    begun = opening(caller)

    async def call() -> None:
        async with ledger.entry(begun):
            pytest.fail("a cancelled call went on")

    task = asyncio.create_task(call())
    await asyncio.sleep(0)  # the task has queued its row, and waits
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await Completion.objects.filter(state=State.RUNNING).aexists()


async def test_a_settled_row_cannot_be_settled_again(caller: Caller) -> None:
    begun = opening(caller)
    async with ledger.entry(begun) as entry:
        entry.final |= {"state": State.OK, "cost_nano_usd": 7}
    again = Settle(begun.id, {"state": State.CANCELLED, "cost_nano_usd": 9})
    submit(again)
    assert isinstance(again.done, Future)
    await asyncio.wrap_future(again.done)

    row = await Completion.objects.aget(pk=begun.id)
    assert (row.state, row.cost_nano_usd) == (State.OK, 7)


async def test_waiting_calls_share_commits(caller: Caller) -> None:
    async def call() -> None:
        async with ledger.entry(opening(caller)) as entry:
            entry.final["state"] = State.OK

    await asyncio.gather(*(call() for _ in range(100)))
    assert await Completion.objects.filter(state=State.OK).acount() == 100


async def test_a_row_that_cannot_be_written_refuses_its_call_alone(caller: Caller) -> None:
    nobody = Caller(project_id=987654, project="nobody")

    async def call(who: Caller) -> str:
        async with ledger.entry(opening(who)) as entry:
            entry.final["state"] = State.OK
        return "answered"

    outcomes = await asyncio.gather(call(caller), call(nobody), call(caller), return_exceptions=True)
    assert outcomes[0] == outcomes[2] == "answered"
    assert isinstance(outcomes[1], UnavailableError)


@pytest.mark.sqlite
def test_a_database_locked_by_another_writer_refuses_the_call_within_a_second(caller: Caller) -> None:
    async def call() -> None:
        async with ledger.entry(opening(caller)):
            pytest.fail("a call without a row went on")

    ledger.start()
    with transaction.atomic():  # IMMEDIATE: holds the write lock
        Completion.objects.filter(pk=uuid.uuid4()).update(attempts=1)
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            asyncio.run(call())
        assert time.monotonic() - began < 1.5  # of which half a second is for a machine with other work
    ledger.close()  # where the row was written after all,
    ledger.close()  # it was taken back
    assert not Completion.objects.filter(state=State.RUNNING).exists()


def test_closing_commits_what_waits_and_the_next_call_starts_anew(caller: Caller) -> None:
    async def call() -> uuid.UUID:
        begun = opening(caller)
        async with ledger.entry(begun) as entry:
            entry.final["state"] = State.OK
        return begun.id

    first = asyncio.run(call())
    ledger.close()
    second = asyncio.run(call())
    assert set(Completion.objects.filter(state=State.OK).values_list("pk", flat=True)) == {first, second}


def test_ids_are_ordered_by_time_and_say_that_they_are_version_seven() -> None:
    ids = [ledger.new_id() for _ in range(3)]
    assert all(one.version == 7 and one.variant == uuid.RFC_4122 for one in ids)
    assert ids[0].int >> 80 <= ids[-1].int >> 80
