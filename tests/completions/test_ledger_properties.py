"""Whatever happens in whatever order: the ledger's sums are what its rows say, no hard budget is exceeded.

A state machine drives the books (the transactions that the writer commits) through admits, settlements,
repeated settlements, voids, crashes with recovery, new periods, other time zones and repricing, beside a
model on one page.
"""

import itertools
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from completions import accounts
from completions.budgets import Claim, claims
from completions.ledger import new_id, recovery
from completions.ledger.audit import audit
from completions.ledger.books import Books, Windows
from completions.ledger.operations import Adjust, Admit, Opening, Operation, Settle
from completions.models import (
    Adjustment,
    AdjustmentKind,
    Budget,
    BudgetWindow,
    Charge,
    Completion,
    Epoch,
    Project,
    State,
)
from completions.periods import Span, span_of
from completions.types import Caller
from providers.types import NANO

pytestmark = pytest.mark.django_db

AMOUNT = 100  # nano-dollars of each hard budget: small, so that refusals are common
numbers = itertools.count()


@dataclass
class Call:
    """What the model knows of one call."""

    id: uuid.UUID
    hold: int
    windows: tuple[tuple[str, Any], ...]  # budget and start of its period
    epoch: int
    cost: int | None = None  # None while it runs
    recovered: bool = False  # taken for dead: its true cost, should it come, is booked once as an adjustment


@dataclass
class Model:
    spent: dict[Any, int] = field(default_factory=dict)
    held: dict[Any, int] = field(default_factory=dict)
    periods: dict[str, Span] = field(default_factory=dict)  # the last one of each budget


class Ledger(RuleBasedStateMachine):
    calls: Bundle[Call] = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.project = Project.objects.create(slug=f"p{next(numbers)}", name="p")
        for period, hard in (("day", True), ("total", True), ("month", False)):
            Budget.objects.create(
                project=self.project, amount=Decimal(AMOUNT) / NANO if hard else 1, period=period, hard=hard
            )
        accounts.forget()
        self.caller = Caller(self.project.pk, self.project.slug)
        self.model = Model()
        self.known: Windows = {}
        self.epoch = recovery.register()
        self.days = 0
        self.zone = "UTC"
        self.admitted: list[Call] = []

    def post(self, *batch: Operation) -> Books:
        books = Books(self.epoch, self.known)
        with transaction.atomic():
            books.post(batch)
        self.known |= books.new_windows
        return books

    def claims(self, at: datetime) -> list[Claim]:
        facts = accounts.project(self.project.pk)
        assert facts is not None
        found = claims(facts, self.caller, "", at)
        spans = [span_of(claim.budget.period, at, ZoneInfo(self.zone)) for claim in found]
        return [claim._replace(span=span) for claim, span in zip(found, spans, strict=True)]

    @rule(target=calls, holds=st.lists(st.integers(0, 60), min_size=1, max_size=5))
    def admit(self, holds: list[int]) -> Any:
        """A batch of calls: each is admitted if, and only if, every hard budget covers it by then."""
        at = timezone.now() + timedelta(days=self.days)
        mine = self.claims(at)
        places = tuple(self._place(claim, at) for claim in mine)
        hard = [place for claim, place in zip(mine, places, strict=True) if claim.budget.hard]
        batch = [self._admit(mine, at, hold) for hold in holds]
        refused = self.post(*batch).refused
        for place in places:  # its window is there now, though every call may have been refused
            self.model.held.setdefault(place, 0)
        admitted = []
        for op, hold in zip(batch, holds, strict=True):
            used = (self.model.spent.get(place, 0) + self.model.held.get(place, 0) for place in hard)
            fits = all(amount + hold <= AMOUNT for amount in used)
            assert (op.opening.id not in refused) == fits
            if fits:
                for place in places:
                    self.model.held[place] = self.model.held.get(place, 0) + hold
                admitted.append(Call(op.opening.id, hold, places, self.epoch))
        self.admitted += admitted
        return multiple(*admitted)

    @rule(call=calls, share=st.integers(0, 100), state=st.sampled_from([State.OK, State.CLIENT_GONE]))
    def settle(self, call: Call, share: int, state: State) -> None:
        """The first settlement counts; every later one changes nothing, but for a call taken for dead."""
        cost = call.hold * share // 100
        self.post(Settle(call.id, {"state": state, "cost_nano_usd": cost}))
        self._settled_once(call, cost)

    @rule(call=calls)
    def settle_twice_at_once(self, call: Call) -> None:
        final = {"state": State.OK, "cost_nano_usd": call.hold}
        self.post(Settle(call.id, final), Settle(call.id, final))
        self._settled_once(call, call.hold)

    @rule(call=calls)
    def void(self, call: Call) -> None:
        self.post(Settle(call.id, {"state": State.CANCELLED, "cost_nano_usd": 0}))
        self._settled_once(call, 0)

    @rule(call=calls, more=st.integers(0, 30))
    def reprice(self, call: Call, more: int) -> None:
        """The second of two equal corrections changes nothing."""
        if call.cost is not None:
            call.cost += more
            correction = Adjust(call.id, AdjustmentKind.REPRICE, call.cost, "", "", "a test")
            self.post(correction, correction)
            for place in call.windows:
                self.model.spent[place] += more

    @rule()
    def begin_a_new_day(self) -> None:
        self.days += 1

    @rule()
    def step_the_clock_back(self) -> None:
        self.days = max(0, self.days - 1)

    @rule(zone=st.sampled_from(["UTC", "America/New_York", "Asia/Tokyo"]))
    def change_the_time_zone(self, zone: str) -> None:
        self.zone = zone

    @rule()
    def crash_and_recover(self) -> None:
        """The process dies: another settles its running rows at what is known, here nothing."""
        recovery.end(self.epoch)
        died, self.epoch, self.known = self.epoch, recovery.register(), {}
        assert set(recovery.orphaned_epochs({self.epoch})) <= {died}
        while settles := recovery.settlements(died):
            self.post(*settles)
        for call in self.admitted:
            if call.cost is None:
                self._settled(call, 0)
                call.recovered = True

    @invariant()
    def the_books_agree_with_the_model(self) -> None:
        for window in BudgetWindow.objects.filter(budget__project=self.project):
            place = (window.budget_id.hex, window.starts_at)
            assert window.spent_nano == self.model.spent.get(place, 0)
            assert window.held_nano == self.model.held.get(place, 0)

    @invariant()
    def no_two_periods_of_a_budget_overlap(self) -> None:
        windows = BudgetWindow.objects.filter(budget__project=self.project).order_by("budget", "starts_at")
        for earlier, later in itertools.pairwise(windows):
            if earlier.budget_id == later.budget_id:
                assert earlier.ends_at is not None
                assert earlier.ends_at <= later.starts_at

    @invariant()
    def the_audit_finds_nothing(self) -> None:
        assert [problem for problem in audit() if "living" not in problem] == []

    def _place(self, claim: Claim, at: datetime) -> tuple[str, Any]:
        """The window that pays: the last one until it ends, then one that begins there."""
        last = self.model.periods.get(claim.budget.id)
        if last is None:
            last = claim.span
        elif last.end is not None and last.end <= at:
            last = Span(max(last.end, claim.span.start), claim.span.end)
        self.model.periods[claim.budget.id] = last
        return (claim.budget.id, last.start)

    def _settled_once(self, call: Call, cost: int) -> None:
        if call.cost is None:
            self._settled(call, cost)
        elif call.recovered and cost:
            call.recovered = False
            for place in call.windows:
                self.model.spent[place] += cost - call.cost
            call.cost = cost

    def _settled(self, call: Call, cost: int) -> None:
        call.cost = cost
        for place in call.windows:
            self.model.held[place] -= call.hold
            self.model.spent[place] = self.model.spent.get(place, 0) + cost

    def _admit(self, mine: list[Claim], at: datetime, hold: int) -> Admit:
        opening = Opening(new_id(), self.caller, "m", stream=False, claims=mine, hold_nano=hold)
        return Admit(opening, at)

    def teardown(self) -> None:
        """The next example begins with an empty ledger."""
        for model in (Adjustment, Charge, Completion, Budget, Project, Epoch):
            model.objects.all().delete()


def test_the_ledger_is_true_after_every_step() -> None:
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
