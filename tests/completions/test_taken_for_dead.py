"""A process that others took for dead, or whose ledger failed: it writes again, and drops nothing."""

import asyncio
import subprocess
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from completions import ledger, probes
from completions.ledger import progress, recovery, writer
from completions.ledger.audit import audit
from completions.ledger.books import Books
from completions.ledger.operations import Operation, Settle
from completions.ledger.spool import Spool
from completions.models import Adjustment, Completion, Epoch, State
from completions.types import Caller
from tests.factories import make_project
from tests.waiting import eventually

WAIT_SECONDS = 10.0
COST = 600_000


@pytest.fixture(autouse=True)
def _own_writer(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each of these tests begins as a process does, and looks around often."""
    ledger.close()
    monkeypatch.setattr(writer, "TICK_SECONDS", 0.05)
    for step in writer.PERIODS:
        monkeypatch.setitem(writer.PERIODS, step, 0.05)
    yield
    ledger.close()
    for path in recovery.folder().glob("*"):
        path.unlink()


@pytest.fixture
def caller() -> Caller:
    project = make_project()
    return Caller(project.pk, project.slug)


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of this machine that lives, and never beats."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def opening(caller: Caller) -> ledger.Opening:
    return ledger.Opening(ledger.new_id(), caller, "m", stream=True)


def settled(call: uuid.UUID) -> bool:
    return Completion.objects.filter(pk=call, state=State.OK, cost_nano_usd=COST).exists()


def silent(pid: int, host: str) -> int:
    """An epoch whose last beat was long ago."""
    then = timezone.now() - timedelta(seconds=recovery.DEAD_SECONDS + 5)
    return Epoch.objects.create(host=host, pid=pid, started_at=then, heartbeat_at=then).pk


def take_for_dead(epoch: int) -> None:
    """As another process does: rows recovered, the epoch ended, its file gone."""
    for settle in recovery.settlements(epoch):
        Completion.objects.filter(pk=settle.id).update(**settle.final)
    recovery.end(epoch)
    recovery.progress_path(epoch).unlink(missing_ok=True)


async def running_call(caller: Caller, *, dies: bool) -> uuid.UUID:
    """A call; its process is perhaps taken for dead meanwhile."""
    begun = opening(caller)
    async with ledger.entry(begun) as entry:
        entry.received(400)
        if dies:
            [epoch] = await asyncio.to_thread(lambda: list(Epoch.objects.filter(ended_at=None)))
            await asyncio.to_thread(take_for_dead, epoch.pk)
            assert await asyncio.to_thread(eventually, lambda: successor(epoch.pk), WAIT_SECONDS)
            again = await asyncio.to_thread(lambda: Epoch.objects.get(ended_at=None))
            assert progress.read(recovery.progress_path(again.pk)) == {begun.id: 400}
        entry.final |= {"state": State.OK, "cost_nano_usd": COST}
    return begun.id


def successor(epoch: int) -> bool:
    found = Epoch.objects.filter(ended_at=None, pk__gt=epoch).first()
    return found is not None and recovery.progress_path(found.pk).exists()


class TestTakenForDead:
    async def test_it_begins_one_new_epoch_keeps_its_slots_and_serves_on(self, caller: Caller) -> None:
        late = await running_call(caller, dies=True)
        after = await running_call(caller, dies=False)

        assert await Epoch.objects.acount() == 2
        assert await asyncio.to_thread(settled, after)
        row = await Completion.objects.aget(pk=late)
        adjustment = await Adjustment.objects.aget(completion_id=late)
        assert row.state == State.RECOVERED
        assert (row.cost_nano_usd or 0) + adjustment.amount_nano == COST
        assert await asyncio.to_thread(audit) == []

    def test_a_process_of_this_machine_that_runs_is_alive_however_long_it_was_silent(
        self, caller: Caller, sleeper: "subprocess.Popen[bytes]"
    ) -> None:
        start = recovery._start(sleeper.pid)
        stopped = silent(sleeper.pid, f"{recovery.host()}@{start}")
        kept = recovery.progress_path(stopped)
        kept.parent.mkdir(exist_ok=True)
        kept.touch()
        recovery.close_dead(set())
        assert recovery.living() == {stopped}
        assert kept.exists()

    def test_another_process_with_the_id_of_one_that_died_does_not_make_it_live(
        self, sleeper: "subprocess.Popen[bytes]"
    ) -> None:
        now = timezone.now()
        Epoch.objects.create(host=f"{recovery.host()}@1", pid=sleeper.pid, started_at=now, heartbeat_at=now)
        assert recovery.living() == set()

    def test_an_epoch_that_this_process_registers_says_when_it_started(self) -> None:
        epoch = Epoch.objects.get(pk=recovery.register())
        assert epoch.host == f"{recovery.host()}@{recovery._start(epoch.pid)}"
        assert recovery.living() == {epoch.pk}

    def test_after_an_outage_others_are_given_the_time_to_beat(
        self, caller: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They could not either."""
        monkeypatch.setattr(recovery, "BEAT_SECONDS", 1.5)
        other = silent(1, "another machine")
        call = ledger.new_id()
        now = timezone.now()
        Completion.objects.create(
            id=call, project_id=caller.project_id, surface="api", epoch_id=other, created_at=now
        )
        away, beat, closed = [OperationalError("away")], recovery.beat, recovery.close_dead
        recovered: list[int] = []

        def beats(epoch: int) -> bool:
            if away:
                raise away.pop()
            return beat(epoch)

        def close_dead(mine: set[int]) -> None:
            closed(mine)
            recovered.append(1)

        monkeypatch.setattr(recovery, "beat", beats)
        monkeypatch.setattr(recovery, "close_dead", close_dead)
        ledger.start()
        assert eventually(lambda: not away, WAIT_SECONDS)
        assert eventually(lambda: not ledger.is_away(), WAIT_SECONDS)
        Epoch.objects.filter(pk=other).update(heartbeat_at=timezone.now())  # it beats again
        assert eventually(lambda: bool(recovered), WAIT_SECONDS)
        assert Completion.objects.get(pk=call).state == State.RUNNING


class Odd:
    """Books that fail at settlements, as often as they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: float) -> None:
        self.left = times
        post = Books.post

        def odd(books: Books, batch: list[Operation]) -> None:
            if self.left and any(isinstance(one, Settle) for one in batch):
                self.left -= 1
                raise RuntimeError("odd")
            post(books, batch)

        monkeypatch.setattr(Books, "post", odd)


def files(suffix: str) -> list[str]:
    return [path.name for path in recovery.folder().glob(f"*{suffix}")]


class TestNothingIsDropped:
    def test_a_settlement_that_fails_unexpectedly_is_settled_later(
        self, caller: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Odd(monkeypatch, 2)
        call = asyncio.run(running_call(caller, dies=False))
        assert eventually(lambda: settled(call), WAIT_SECONDS)
        assert eventually(lambda: files(".spool") + files(".refused") == [], WAIT_SECONDS)

    def test_one_that_fails_again_and_again_waits_in_a_file_of_its_own(
        self, caller: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        odd = Odd(monkeypatch, float("inf"))
        call = asyncio.run(running_call(caller, dies=False))
        assert eventually(lambda: files(".refused") != [], WAIT_SECONDS)
        odd.left = 0
        assert eventually(lambda: settled(call), WAIT_SECONDS)
        assert eventually(lambda: files(".refused") == [], WAIT_SECONDS)

    def test_one_that_can_neither_be_written_nor_spooled_waits_in_memory(
        self, caller: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Odd(monkeypatch, 1)
        with monkeypatch.context() as disk:
            disk.setattr(Spool, "add", full)
            call = asyncio.run(running_call(caller, dies=False))
        assert eventually(lambda: settled(call), WAIT_SECONDS)

    def test_one_whose_writer_has_no_epoch_is_settled_once_it_has(
        self, caller: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def call(disk: pytest.MonkeyPatch) -> uuid.UUID:
            begun = opening(caller)
            async with ledger.entry(begun) as entry:
                disk.setattr(progress.Progress, "move", full)
                ledger.forget()
                assert await asyncio.to_thread(eventually, ledger.is_away, WAIT_SECONDS)
                entry.final |= {"state": State.OK, "cost_nano_usd": COST}
            return begun.id

        with monkeypatch.context() as disk:
            made = asyncio.run(call(disk))
            assert not settled(made)
        assert eventually(lambda: settled(made), WAIT_SECONDS)


def full(*_: Any) -> None:
    raise OSError(28, "the disk is full")


async def test_a_process_that_cannot_begin_an_epoch_is_not_ready_and_leaves_none_behind(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes._Looked.at = float("-inf")
    with monkeypatch.context() as disk:
        disk.setattr(progress.Progress, "move", full)
        await asyncio.to_thread(ledger.start)
        assert await asyncio.to_thread(eventually, ledger.is_away, WAIT_SECONDS)
        status, told, _ = await probes.ready({})
        assert (status, told["status"]) == (503, "not ready")
        assert not await Epoch.objects.filter(ended_at=None).aexists()
    assert await asyncio.to_thread(eventually, lambda: not ledger.is_away(), WAIT_SECONDS)
    status, _, _ = await probes.ready({})
    assert status == 200
    assert await asyncio.to_thread(settled, await running_call(caller, dies=False))
