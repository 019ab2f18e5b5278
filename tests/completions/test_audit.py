"""The audit: each row that was tampered with is named, and a true ledger is not."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from completions.ledger import audit as auditing
from completions.ledger.audit import audit
from completions.models import Attempt, Budget, BudgetWindow, Charge, Completion, Project, State
from completions.periods import FOR_EVER
from tests.completions.calls import COST, UNPRICED, make_attempt, make_call
from tests.factories import make_project

pytestmark = pytest.mark.django_db

HOLD = 2 * COST


def make_charged(count: int = 1) -> list[Completion]:
    """Calls of one attempt each, all that they cost charged to one budget."""
    budget = Budget.objects.create(project=make_project(), amount=5, period="total")
    calls = [make_call(hold_nano=HOLD) for _ in range(count)]
    window = BudgetWindow.objects.create(
        budget=budget, starts_at=FOR_EVER.start, ends_at=None, spent_nano=COST * count
    )
    for call in calls:
        make_attempt(call)
        Charge.objects.create(completion=call, window=window, hold_nano=HOLD, cost_nano=COST)
    return calls


def lower_every_cost() -> None:
    """All that sums are made of, so that they agree."""
    Completion.objects.update(cost_nano_usd=1)
    Attempt.objects.update(cost_nano_usd=1)
    Charge.objects.update(cost_nano=1)
    BudgetWindow.objects.update(spent_nano=1)


def forget_every_charge() -> None:
    Charge.objects.all().delete()
    BudgetWindow.objects.update(spent_nano=0)


def forget_every_attempt() -> None:
    Attempt.objects.all().delete()


def multiply_the_tokens() -> None:
    for model in (Completion, Attempt):
        model.objects.update(completion_tokens=F("completion_tokens") * 1000)


def lower_the_holds() -> None:
    Completion.objects.update(state=State.RUNNING)
    Charge.objects.update(hold_nano=0, cost_nano=None)
    BudgetWindow.objects.update(spent_nano=0)


def hide_the_windows() -> None:
    Project.objects.update(ledger_since=timezone.now() + timedelta(days=365))


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (lower_every_cost, f"attempt 1 of completion {{}} cost 1, its tokens at its prices {COST}"),
        (
            lambda: Attempt.objects.update(cost_nano_usd=None),
            f"completion {{}} cost {COST}, its attempts None",
        ),
        (forget_every_attempt, "completion {} made 1 attempts, 0 are there"),
        (forget_every_charge, f"completion {{}} held {HOLD}, but is charged to no window"),
        (multiply_the_tokens, f"attempt 1 of completion {{}} cost {COST}, its tokens at its prices 50025000"),
        (lower_the_holds, f"completion {{}} held {HOLD}, its charge says 0"),
        (hide_the_windows, "which is yet to come"),
        (
            lambda: Attempt.objects.update(prices=""),
            f"attempt 1 of completion {{}} cost {COST}, its tokens at its prices None",
        ),
    ],
)
def test_what_was_tampered_with_is_named(tamper: Callable[[], object], says: str) -> None:
    [call] = make_charged()
    assert audit() == []
    tamper()
    problems = audit()
    assert [problem for problem in problems if says.format(call.pk) in problem], problems


def test_a_recovered_call_without_attempts_is_true_at_its_own_tokens() -> None:
    """What a dead process had called is not always known."""
    call = make_call(state=State.RECOVERED)
    assert audit() == []
    Completion.objects.update(cost_nano_usd=COST - 1)
    assert audit() == [f"completion {call.pk} cost {COST - 1}, its tokens at its prices {COST}"]


def test_what_was_never_called_is_true_at_no_cost_whatever_it_was_admitted_with() -> None:
    for cost in (0, None):
        make_call(attempts=0, cost_nano_usd=cost, state=State.CANCELLED)
    make_call(attempts=0, cache="HIT", cost_nano_usd=0, prices="", prompt_tokens=0, completion_tokens=0)
    assert audit() == []


def test_calls_without_a_price_are_true() -> None:
    unpriced = make_call(**UNPRICED, attempts=2)
    make_attempt(unpriced)
    make_attempt(unpriced, 2, **UNPRICED)
    assert audit() == []


def test_an_attempt_that_used_nothing_is_true() -> None:
    call = make_call(attempts=2)
    make_attempt(call, 1, prompt_tokens=None, completion_tokens=None, cost_nano_usd=0)
    make_attempt(call, 2)
    assert audit() == []


def test_a_hold_on_a_budget_that_was_deleted_is_true_whatever_budget_came_later() -> None:
    [call] = make_charged()
    Budget.objects.all().delete()
    later = Budget.objects.create(project=call.project, amount=5, period="day")
    start = timezone.now() - timedelta(hours=1)
    BudgetWindow.objects.create(budget=later, starts_at=start, ends_at=start + timedelta(days=1))
    assert audit() == []


def test_every_row_of_many_batches_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "BATCH", 2)
    last = make_charged(5)[-1]
    assert audit() == []
    Attempt.objects.filter(completion=last).delete()
    assert audit() == [f"completion {last.pk} made 1 attempts, 0 are there"]


def test_of_one_kind_so_many_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "SHOWN", 2)
    make_charged(5)
    forget_every_attempt()
    assert len(audit()) == 2
