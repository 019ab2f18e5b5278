"""What a process that died leaves behind, and what another makes of it."""

import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from completions import accounts, budgets, ledger
from completions.ledger import progress, recovery
from completions.ledger.audit import audit
from completions.ledger.books import Books
from completions.ledger.operations import Admit, Opening, Settle
from completions.ledger.progress import Progress
from completions.ledger.spool import Spool
from completions.ledger.writer import submit
from completions.models import (
    Adjustment,
    AdjustmentKind,
    Budget,
    BudgetWindow,
    Completion,
    CompletionContent,
    Epoch,
    State,
)
from completions.types import Caller
from providers.models import ModelPrice
from tests.factories import make_project, make_provider
from tests.waiting import eventually

PRICES = '{"prompt": "0", "completion": "10"}'  # 10,000 nano-dollars a token
HOLD = 1_000_000
WAIT_SECONDS = 10.0


def settled(cost: int, **final: Any) -> dict[str, Any]:
    return {"state": State.OK, "cost_nano_usd": cost, "finished_at": timezone.now()} | final


class TestProgress:
    def test_what_was_counted_can_be_read_while_the_file_is_open_as_after_a_kill(
        self, tmp_path: Path
    ) -> None:
        first, second = uuid.uuid4(), uuid.uuid4()
        file = Progress(tmp_path / "1.progress")
        file.count(file.begin(first), 1234)
        file.begin(second)
        assert progress.read(file.path) == {first: 1234, second: 0}

    def test_a_call_that_ended_leaves_its_slot_to_another(self, tmp_path: Path) -> None:
        file = Progress(tmp_path / "1.progress")
        slot = file.begin(uuid.uuid4())
        file.count(slot, 5)
        file.end(slot)
        assert progress.read(file.path) == {}
        assert file.begin(uuid.uuid4()) == slot

    def test_calls_beyond_the_last_slot_go_uncounted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(progress, "SLOTS", 1)
        file = Progress(tmp_path / "1.progress")
        file.begin(uuid.uuid4())
        slot = file.begin(uuid.uuid4())
        file.count(slot, 5)
        file.end(slot)
        assert slot == -1
        assert list(progress.read(file.path).values()) == [0]

    def test_the_models_that_were_called_are_noted_in_order(self, tmp_path: Path) -> None:
        call = uuid.uuid4()
        file = Progress(tmp_path / "1.progress")
        file.count(file.begin(call), 5)
        file.called(call, 1, 2**40)
        file.called(call, 2, 7)
        file.called(uuid.uuid4(), 1, 9)  # one without a slot
        assert progress.left_in(file.path) == {call: progress.Left(5, (2**40, 7))}

    def test_of_more_than_are_noted_the_last_is_always_known(self, tmp_path: Path) -> None:
        call = uuid.uuid4()
        file = Progress(tmp_path / "1.progress")
        file.begin(call)
        for number in range(1, progress.NOTED + 3):
            file.called(call, number, number)
        models = progress.left_in(file.path)[call].models
        assert (len(models), models[-1]) == (progress.NOTED, progress.NOTED + 2)

    def test_a_slot_that_ended_leaves_nothing_to_the_next(self, tmp_path: Path) -> None:
        first, second = uuid.uuid4(), uuid.uuid4()
        file = Progress(tmp_path / "1.progress")
        slot = file.begin(first)
        file.called(first, 1, 7)
        file.end(slot)
        file.begin(second)
        assert progress.left_in(file.path) == {second: progress.Left()}

    @pytest.mark.parametrize("removed", [False, True])
    def test_it_goes_on_under_another_name_even_where_its_file_was_removed(
        self, tmp_path: Path, *, removed: bool
    ) -> None:
        call = uuid.uuid4()
        file = Progress(tmp_path / "1.progress")
        slot = file.begin(call)
        file.count(slot, 5)
        if removed:
            file.path.unlink()
        file.move(tmp_path / "2.progress")
        assert progress.read(tmp_path / "2.progress") == {call: 5}
        file.count(slot, 6)
        assert progress.read(tmp_path / "2.progress") == {call: 6}
        assert [path.name for path in tmp_path.iterdir()] == ["2.progress"]

    def test_no_file_means_that_nothing_is_known(self, tmp_path: Path) -> None:
        assert progress.read(tmp_path / "1.progress") == {}


def settles_in(spool: Spool) -> list[Settle]:
    """What waits in a spool that was given nothing but settlements."""
    found = []
    for operation in spool.read():
        assert isinstance(operation, Settle)
        found.append(operation)
    return found


class TestSpool:
    def test_what_was_added_is_read_as_it_was(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / "ledger" / "1.spool")
        settle = Settle(uuid.uuid4(), settled(7, provider_id=uuid.uuid4()), [{"number": 1}])
        spool.add([settle])
        [read] = settles_in(spool)
        assert (read.id, read.final, read.attempts) == (settle.id, settle.final, [{"number": 1}])

    def test_a_line_cut_in_two_costs_neither_those_before_nor_those_after(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / "1.spool")
        before, after = Settle(uuid.uuid4(), settled(1)), Settle(uuid.uuid4(), settled(2))
        spool.add([before, Settle(uuid.uuid4(), settled(3))])
        spool.path.write_bytes(spool.path.read_bytes()[:-20])
        spool.add([after])
        assert [settle.id for settle in settles_in(spool)] == [before.id, after.id]


@pytest.fixture
def _own_writer(transactional_db: None) -> Iterator[None]:
    """Each of these tests begins as a process does."""
    ledger.close()
    yield
    ledger.close()
    for path in recovery.folder().glob("*"):
        path.unlink()


@pytest.fixture
def caller(_own_writer: None) -> Caller:
    project = make_project()
    Budget.objects.create(project=project, amount=1, period="total", hard=True)
    return Caller(project.pk, project.slug)


@pytest.fixture
def dead_epoch(_own_writer: None) -> int:
    """Of a process of this machine that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    now = timezone.now()
    return Epoch.objects.create(host=recovery.host(), pid=process.pid, started_at=now, heartbeat_at=now).pk


def epoch_elsewhere(silent_seconds: float) -> int:
    beat = timezone.now() - timedelta(seconds=silent_seconds)
    return Epoch.objects.create(host="another machine", pid=1, started_at=beat, heartbeat_at=beat).pk


def running(caller: Caller, epoch: int, **opened: Any) -> uuid.UUID:
    """A call that a process admitted, with its hold."""
    facts = accounts.project(caller.project_id)
    assert facts is not None
    claims = budgets.claims(facts, caller, "", timezone.now())
    call = ledger.new_id()
    opening = Opening(call, caller, "m", stream=True, claims=claims, hold_nano=HOLD, prices=PRICES)
    opening = opening._replace(**opened)
    with transaction.atomic():
        Books(epoch, {}).post([Admit(opening, timezone.now())])
    return call


def state_of(call: uuid.UUID) -> str:
    return Completion.objects.get(pk=call).state


def assert_spent(nano: int) -> None:
    window = BudgetWindow.objects.get()
    assert (window.spent_nano, window.held_nano) == (nano, 0)
    assert [problem for problem in audit() if "living" not in problem] == []


class TestRecovery:
    def test_a_call_of_a_dead_process_is_billed_for_the_bytes_it_had_received(
        self, caller: Caller, dead_epoch: int
    ) -> None:
        call = running(caller, dead_epoch)
        left = Progress(recovery.progress_path(dead_epoch))
        left.count(left.begin(call), 401)
        ledger.start()
        assert eventually(lambda: state_of(call) == State.RECOVERED, WAIT_SECONDS)

        row = Completion.objects.get(pk=call)
        assert (row.completion_tokens, row.cost_nano_usd) == (101, 1_010_000)
        assert row.usage_source == "estimated"
        assert_spent(1_010_000)

    def test_the_epoch_of_a_dead_process_is_closed_and_its_files_go(
        self, caller: Caller, dead_epoch: int
    ) -> None:
        running(caller, dead_epoch)
        path = Progress(recovery.progress_path(dead_epoch)).path
        ledger.start()
        assert eventually(lambda: Epoch.objects.get(pk=dead_epoch).ended_at is not None, WAIT_SECONDS)
        assert eventually(lambda: not path.exists(), WAIT_SECONDS)

    def test_what_it_had_spooled_is_settled_as_it_was(self, caller: Caller, dead_epoch: int) -> None:
        call = running(caller, dead_epoch)
        spool = Spool(recovery.spool_path(dead_epoch))
        spool.add([Settle(call, settled(600_000))])
        ledger.start()
        assert eventually(lambda: not spool.path.exists(), WAIT_SECONDS)
        assert state_of(call) == State.OK
        assert_spent(600_000)

    def test_a_spool_that_is_replayed_again_changes_nothing(self, caller: Caller, dead_epoch: int) -> None:
        call = running(caller, dead_epoch)
        spool = Spool(recovery.spool_path(dead_epoch))
        for _ in range(2):
            spool.add([Settle(call, settled(600_000))])
            ledger.start()
            assert eventually(lambda: not spool.path.exists(), WAIT_SECONDS)
            ledger.close()
        assert_spent(600_000)

    def test_one_spooled_settlement_that_cannot_be_booked_does_not_hold_up_the_others(
        self, caller: Caller, dead_epoch: int
    ) -> None:
        strange, sound = running(caller, dead_epoch), running(caller, dead_epoch)
        spool = Spool(recovery.spool_path(dead_epoch))
        spool.add([Settle(strange, settled(-5 * HOLD)), Settle(sound, settled(600_000))])
        ledger.start()
        assert eventually(lambda: state_of(sound) == State.OK, WAIT_SECONDS)
        assert eventually(lambda: state_of(strange) == State.RECOVERED, WAIT_SECONDS)
        assert_spent(600_000)

    def test_the_calls_of_a_process_on_another_machine_are_its_own_while_it_beats(
        self, caller: Caller
    ) -> None:
        call = running(caller, epoch_elsewhere(silent_seconds=1))
        assert recovery.orphaned_epochs(set()) == []
        ledger.start()
        time.sleep(0.5)
        assert state_of(call) == State.RUNNING

    def test_a_process_on_another_machine_that_fell_silent_is_taken_for_dead(self, caller: Caller) -> None:
        call = running(caller, epoch_elsewhere(silent_seconds=recovery.DEAD_SECONDS + 1))
        ledger.start()
        assert eventually(lambda: state_of(call) == State.RECOVERED, WAIT_SECONDS)

    def test_a_process_that_was_taken_for_dead_is_told_so_by_its_next_beat(self, dead_epoch: int) -> None:
        assert recovery.beat(dead_epoch)
        recovery.end(dead_epoch)
        assert not recovery.beat(dead_epoch)


@pytest.fixture
def models() -> tuple[int, int]:
    """Two candidates, the second of them the dearer: $20 a million tokens of answer."""
    found = []
    for slug, price in (("first", 10), ("second", 20)):
        model = make_provider(slug=slug, models=("m",)).models.get()
        ModelPrice.objects.create(model=model, valid_from="2020-01-01", prompt=1, completion=price)
        found.append(model.pk)
    return found[0], found[1]


class TestFailover:
    """What is billed is the candidate that was being called, not the first."""

    def recovered(self, caller: Caller, epoch: int, *called: int, received: int = 400) -> Completion:
        call = running(caller, epoch, provider_slug="first", model="m", prompt_tokens=3)
        left = Progress(recovery.progress_path(epoch))
        left.count(left.begin(call), received)
        for number, model in enumerate(called, start=1):
            left.called(call, number, model)
        ledger.start()
        assert eventually(lambda: state_of(call) == State.RECOVERED, WAIT_SECONDS)
        return Completion.objects.get(pk=call)

    def attempts(self, row: Completion) -> list[tuple[Any, ...]]:
        columns = ("number", "provider_slug", "state", "completion_tokens", "cost_nano_usd")
        found = list(row.attempt_rows.values_list(*columns))
        assert row.attempts == len(found)
        return found

    def test_it_is_billed_at_the_prices_of_the_candidate_that_took_over(
        self, caller: Caller, dead_epoch: int, models: tuple[int, int]
    ) -> None:
        row = self.recovered(caller, dead_epoch, *models)
        cost = 100 * 20_000 + 3 * 1_000
        assert (row.provider_slug, row.model, row.language_model_id) == ("second", "m", models[1])
        assert (row.cost_nano_usd, row.price_source) == (cost, "override 2020-01-01")
        assert self.attempts(row) == [
            (1, "first", State.UPSTREAM_ERROR, None, 0),
            (2, "second", State.RECOVERED, 100, cost),
        ]
        assert_spent(cost)

    def test_the_first_candidate_is_billed_at_the_prices_of_its_row(
        self, caller: Caller, dead_epoch: int, models: tuple[int, int]
    ) -> None:
        """They were admitted so, whatever the list says now."""
        ModelPrice.objects.update(completion=99)
        row = self.recovered(caller, dead_epoch, models[0])
        assert (row.provider_slug, row.cost_nano_usd, row.prices) == ("first", 1_000_000, PRICES)
        assert self.attempts(row) == [(1, "first", State.RECOVERED, 100, 1_000_000)]

    def test_a_candidate_without_a_price_leaves_the_cost_open(
        self, caller: Caller, dead_epoch: int, models: tuple[int, int]
    ) -> None:
        ModelPrice.objects.filter(model=models[1]).delete()
        row = self.recovered(caller, dead_epoch, *models)
        assert (row.provider_slug, row.cost_nano_usd, row.prices) == ("second", None, "")
        assert [cost for *_, cost in self.attempts(row)] == [0, None]

    def test_a_candidate_that_is_gone_is_taken_for_the_first(
        self, caller: Caller, dead_epoch: int, models: tuple[int, int]
    ) -> None:
        row = self.recovered(caller, dead_epoch, models[0], 10**9)
        assert (row.provider_slug, row.cost_nano_usd) == ("first", 1_000_000)
        assert [slug for _, slug, *_ in self.attempts(row)] == ["first", "first"]

    def test_prices_that_cannot_be_read_keep_no_row_from_its_end(
        self, caller: Caller, dead_epoch: int
    ) -> None:
        call = running(caller, dead_epoch, prices="no prices")
        ledger.start()
        assert eventually(lambda: state_of(call) == State.RECOVERED, WAIT_SECONDS)
        assert Completion.objects.get(pk=call).cost_nano_usd is None


class TestLateSettlement:
    def test_the_difference_to_what_was_recovered_is_booked_beside_it_once(
        self, caller: Caller, dead_epoch: int
    ) -> None:
        call = running(caller, dead_epoch)
        with transaction.atomic():
            Books(None, {}).post(recovery.settlements(dead_epoch))
        for _ in range(2):
            with transaction.atomic():
                Books(None, {}).post([Settle(call, settled(600_000))])

        row = Completion.objects.get(pk=call)
        assert (row.state, row.cost_nano_usd) == (State.RECOVERED, 0)
        adjustment = Adjustment.objects.get()
        assert (adjustment.kind, adjustment.amount_nano) == (AdjustmentKind.LATE, 600_000)
        assert_spent(600_000)


class TestSettling:
    def test_a_text_that_cannot_be_stored_does_not_keep_a_call_from_its_end(self, caller: Caller) -> None:
        call = running(caller, recovery.register())
        nothing = {"request": None, "response": None, "expires_at": timezone.now()}
        settle = Settle(call, settled(600_000), content=nothing)
        submit(settle)
        assert isinstance(settle.done, Future)
        settle.done.result(WAIT_SECONDS)
        assert state_of(call) == State.OK
        assert not CompletionContent.objects.exists()
        assert_spent(600_000)
