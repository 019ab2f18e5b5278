"""Rows of calls that needed no upstream call: final when they are written, free, and never lost."""

import asyncio
import sqlite3
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from completions import accounts, budgets, ledger
from completions.ledger import recovery, writer
from completions.ledger.audit import audit
from completions.ledger.operations import Opening, Post, Settle
from completions.ledger.spool import Spool
from completions.ledger.writer import submit
from completions.models import (
    Attempt,
    Budget,
    BudgetWindow,
    Charge,
    Completion,
    CompletionContent,
    Epoch,
    State,
    UsageRollup,
)
from completions.rollups import sum_hour
from completions.types import Caller
from tests.factories import make_key, make_project
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

WAIT_SECONDS = 10.0
WORDS = {"request": b'{"messages":[]}', "response": {"role": "assistant", "content": "Hello!"}}


@pytest.fixture(autouse=True)
def own_writer(transactional_db: None) -> Iterator[None]:
    """Each of these tests begins as a process does."""
    ledger.close()
    yield
    ledger.close()
    for path in recovery.folder().glob("*"):
        path.unlink()


@pytest.fixture
def caller() -> Caller:
    project = make_project()
    Budget.objects.create(project=project, amount=1, period="total", hard=True)
    key, _ = make_key(project)
    return Caller(project.pk, project.slug, key.pk, surface="v1", request_id="r1")


Begin = Callable[[], Opening]


@pytest.fixture
def begin(caller: Caller) -> Begin:
    """What admission makes of a call: with the claims of a hard budget, and a hold."""
    facts = accounts.project(caller.project_id)
    assert facts is not None
    claims = budgets.claims(facts, caller, "ada", timezone.now())
    assert claims
    words = {"stream": True, "end_user": "ada", "claims": claims, "hold_nano": 10**15}
    return lambda: Opening(ledger.new_id(), caller, "smart", **words)  # type: ignore[arg-type]


def final(cache: str = "HIT", **changes: Any) -> dict[str, Any]:
    state = State.COALESCED if cache == "COALESCED" else State.OK
    facts = {"state": state, "cost_nano_usd": 0, "cache": cache, "saved_nano_usd": 500}
    return facts | {"cached_from": uuid.UUID(int=7), "prompt_tokens": 0, "completion_tokens": 0} | changes


def content() -> dict[str, Any]:
    return WORDS | {"expires_at": timezone.now() + timedelta(days=1)}


# --- the row


@pytest.mark.parametrize("cache", ["HIT", "STALE", "SEMANTIC", "COALESCED"])
async def test_it_is_final_from_the_beginning(begin: Begin, caller: Caller, cache: str) -> None:
    begun = begin()
    assert await ledger.post(begun, final(cache, latency_ms=3, finish_reason="stop")) is None

    row = await Completion.objects.aget()
    assert (row.pk, row.cache, row.cost_nano_usd, row.saved_nano_usd) == (begun.id, cache, 0, 500)
    assert row.state == (State.COALESCED if cache == "COALESCED" else State.OK)
    assert (row.cached_from, row.latency_ms, row.finish_reason) == (uuid.UUID(int=7), 3, "stop")
    assert (row.project_id, row.api_key_id, row.end_user) == (caller.project_id, caller.api_key_id, "ada")
    assert (row.requested_model, row.surface, row.request_id, row.stream) == ("smart", "v1", "r1", True)
    assert row.finished_at is not None
    assert row.attempts == await Attempt.objects.acount() == 0


async def test_it_holds_nothing_and_is_charged_to_nobody(begin: Begin) -> None:
    """Whatever its opening says: no budget is asked, and none can refuse it."""
    await ledger.post(begin(), final())

    assert await Charge.objects.acount() == await BudgetWindow.objects.acount() == 0
    assert await asyncio.to_thread(audit) == []


async def test_its_words_are_kept_beside_it(begin: Begin) -> None:
    await ledger.post(begin(), final(), content())

    kept = await CompletionContent.objects.aget()
    assert (kept.request, kept.response) == ('{"messages":[]}', '{"role":"assistant","content":"Hello!"}')


async def test_words_that_cannot_be_written_do_not_keep_the_row_from_being(begin: Begin) -> None:
    await ledger.post(begin(), final(), {**content(), "request": {"no": object()}})

    assert (await Completion.objects.aget()).cache == "HIT"
    assert await CompletionContent.objects.acount() == 0


async def test_a_hundred_at_once_are_a_hundred_rows(begin: Begin) -> None:
    await asyncio.gather(*(ledger.post(begin(), final(), content()) for _ in range(100)))

    assert await Completion.objects.filter(cache="HIT").acount() == 100
    assert await CompletionContent.objects.acount() == 100
    assert await asyncio.to_thread(audit) == []


async def test_calls_with_and_without_an_upstream_are_written_together(begin: Begin) -> None:
    begun = begin()._replace(hold_nano=1000)

    async def made() -> None:
        async with ledger.entry(begun) as entry:
            entry.final |= {"state": State.OK, "cost_nano_usd": 700}

    await asyncio.gather(made(), *(ledger.post(begin(), final("COALESCED")) for _ in range(9)))

    states = [state async for state in Completion.objects.values_list("state", flat=True)]
    assert sorted(states) == [State.COALESCED] * 9 + [State.OK]
    window = await BudgetWindow.objects.aget()
    assert (window.spent_nano, window.held_nano) == (700, 0)
    assert await asyncio.to_thread(audit) == []


async def test_a_project_that_is_gone_is_told_and_takes_no_other_with_it(
    begin: Begin, caller: Caller
) -> None:
    gone = Caller(caller.project_id + 1000, "gone")
    lost, kept = await asyncio.gather(
        ledger.post(Opening(ledger.new_id(), gone, "smart", stream=False), final()),
        ledger.post(begin(), final()),
        return_exceptions=True,
    )

    assert "ledger" in str(lost)
    assert kept is None
    assert await Completion.objects.acount() == 1


async def test_a_cancelled_caller_gets_its_row_all_the_same(begin: Begin) -> None:
    begun = begin()
    task = asyncio.create_task(ledger.post(begun, final()))
    await asyncio.sleep(0)  # it waits for its commit
    task.cancel()

    assert isinstance(await task, asyncio.CancelledError)
    assert (await Completion.objects.aget()).pk == begun.id


def test_hourly_sums_count_it(begin: Begin) -> None:
    async def post() -> None:
        for cache in ("HIT", "STALE", "COALESCED"):
            await ledger.post(begin(), final(cache))

    asyncio.run(post())
    for created in Completion.objects.values_list("created_at", flat=True):
        sum_hour(created.replace(minute=0, second=0, microsecond=0))

    sums = dict(UsageRollup.objects.values_list("state").annotate(calls=Sum("calls")))
    assert sums == {State.OK: 2, State.COALESCED: 1}
    assert UsageRollup.objects.aggregate(cost=Sum("cost_nano_usd"))["cost"] == 0


# --- while the database is away


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """Another connection to the database; the writer waits for it no longer than a moment."""
    monkeypatch.setattr(writer, "BUSY_MILLISECONDS", 50)
    with closing(
        sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    ) as other:
        yield other


@pytest.mark.sqlite
async def test_it_waits_in_the_spool_and_is_written_once(begin: Begin, locked: sqlite3.Connection) -> None:
    before, during, later = (begin() for _ in range(3))
    await ledger.post(before, final())
    locked.execute("BEGIN IMMEDIATE")
    await ledger.post(during, final("STALE"), content())
    await ledger.post(later, final("COALESCED"), content())
    assert await Completion.objects.acount() == 1
    assert len(list(recovery.folder().glob("*.spool"))) == 1

    locked.execute("ROLLBACK")
    assert await asyncio.to_thread(eventually, lambda: Completion.objects.count() == 3, WAIT_SECONDS)
    assert await asyncio.to_thread(
        eventually, lambda: not list(recovery.folder().glob("*.spool")), WAIT_SECONDS
    )
    rows = {row.pk: row async for row in Completion.objects.all()}
    assert [rows[one.id].cache for one in (before, during, later)] == ["HIT", "STALE", "COALESCED"]
    assert rows[during.id].cached_from == uuid.UUID(int=7)
    assert await CompletionContent.objects.acount() == 2
    assert await asyncio.to_thread(audit) == []


def posts(begin: Begin) -> list[Post]:
    return [
        Post(begin(), timezone.now(), final() | {"finished_at": timezone.now()}, words)
        for words in (None, content())
    ]


def test_what_is_spooled_is_read_as_it_was(tmp_path: Path, begin: Begin) -> None:
    spool = Spool(tmp_path / "1.spool")
    bare, whole = posts(begin)
    settle = Settle(uuid.uuid4(), {"state": State.OK, "finished_at": timezone.now()})
    spool.add([bare, settle, whole])

    first, second, third = spool.read()
    for read, written in ((first, bare), (third, whole)):
        assert isinstance(read, Post)
        assert read.opening == written.opening._replace(claims=[])
        assert (read.created_at, read.final) == (written.created_at, written.final)
    assert isinstance(second, Settle)
    assert (first.content, third.content) == (
        None,
        {
            **(whole.content or {}),
            "request": '{"messages":[]}',
            "response": '{"role":"assistant","content":"Hello!"}',
        },
    )


@pytest.fixture
def dead_epoch() -> int:
    """Of a process of this machine that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    now = timezone.now()
    return Epoch.objects.create(host=recovery.host(), pid=process.pid, started_at=now, heartbeat_at=now).pk


def replay(spool: Spool, waiting: list[Post]) -> None:
    """Let another process find what one that died had spooled."""
    spool.add(waiting)
    ledger.close()
    ledger.start()
    assert eventually(lambda: not spool.path.exists(), WAIT_SECONDS)


def test_what_a_dead_process_had_spooled_is_written_by_another_once(begin: Begin, dead_epoch: int) -> None:
    spool, waiting = Spool(recovery.spool_path(dead_epoch)), posts(begin)
    replay(spool, waiting)
    replay(spool, [*waiting, *waiting])

    assert {row.pk for row in Completion.objects.all()} == {one.opening.id for one in waiting}
    assert CompletionContent.objects.count() == 1
    assert audit() == []


def test_one_that_can_never_be_written_does_not_hold_up_the_others(begin: Begin, dead_epoch: int) -> None:
    first, last = posts(begin)
    lost = replace(first, opening=first.opening._replace(id=ledger.new_id(), caller=Caller(10**6, "gone")))
    replay(Spool(recovery.spool_path(dead_epoch)), [first, lost, last])

    assert {row.pk for row in Completion.objects.all()} == {first.opening.id, last.opening.id}


def test_the_same_row_twice_is_one_and_the_first_stands(begin: Begin) -> None:
    first, _ = posts(begin)
    for cache in ("HIT", "STALE"):
        done: Future[None] = Future()
        submit(replace(first, final=first.final | {"cache": cache}, done=done))
        done.result(WAIT_SECONDS)

    assert Completion.objects.get().cache == "HIT"
