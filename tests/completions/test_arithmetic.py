"""The calculation of a cost, as people check it."""

from decimal import Decimal

import pytest
from django.utils import timezone

from completions.arithmetic import arithmetic, current_cost
from completions.models import Adjustment, AdjustmentKind, Completion
from providers import pricing
from providers.types import Price, Rate
from tests.completions.calls import COST, UNPRICED, make_attempt, make_call

pytestmark = pytest.mark.django_db


def adjusted(call: Completion, amount: int) -> None:
    Adjustment.objects.create(
        completion=call, kind=AdjustmentKind.REPRICE, amount_nano=amount, created_at=timezone.now()
    )


def test_the_lines_of_a_call_come_to_its_cost() -> None:
    found = arithmetic(make_call())
    (part,) = found.sums
    assert [(line.name, line.tokens, line.rate, line.nano) for line in part.lines] == [
        ("prompt", 10, Decimal("2.5"), Decimal(25_000)),
        ("completion", 5, Decimal(10), Decimal(50_000)),
    ]
    assert (part.exact, part.agrees) == (Decimal(COST), True)
    assert (found.cost_nano, found.current_nano) == (COST, COST)


def test_every_attempt_that_used_tokens_has_its_own_lines() -> None:
    call = make_call(cost_nano_usd=COST + 4_000)
    dear = pricing.dump(Price(Rate(Decimal(4)), Rate(Decimal(4))))
    make_attempt(
        call, 1, model="other", prompt_tokens=1, completion_tokens=0, prices=dear, cost_nano_usd=4_000
    )
    make_attempt(call, 2, prompt_tokens=None, completion_tokens=None, cost_nano_usd=0)
    make_attempt(call, 3)
    found = arithmetic(call)
    assert [(part.title, part.cost_nano, part.agrees) for part in found.sums] == [
        ("upstream/other", 4_000, True),
        ("upstream/test-model", COST, True),
    ]
    assert sum(part.cost_nano or 0 for part in found.sums) == found.cost_nano


def test_an_amount_between_two_nano_dollars_is_shown_before_it_is_rounded() -> None:
    tiny = pricing.dump(Price(Rate(Decimal("0.00025")), Rate(Decimal(0))))
    (part,) = arithmetic(make_call(prices=tiny, cost_nano_usd=2)).sums
    assert (part.exact, part.agrees) == (Decimal("2.5"), True)


def test_a_booked_cost_that_the_lines_do_not_come_to_is_told() -> None:
    (part,) = arithmetic(make_call(cost_nano_usd=COST + 1)).sums
    assert not part.agrees


def test_prices_that_were_not_kept_leave_no_lines() -> None:
    (part,) = arithmetic(make_call(prices="")).sums
    assert (part.lines, part.cost_nano) == ([], COST)


def test_corrections_are_part_of_the_current_cost() -> None:
    call = make_call()
    adjusted(call, 5_000)
    adjusted(call, -1_000)
    found = arithmetic(call)
    assert [adjustment.amount_nano for adjustment in found.adjustments] == [5_000, -1_000]
    assert (found.cost_nano, found.current_nano, current_cost(call)) == (COST, COST + 4_000, COST + 4_000)


def test_an_unpriced_call_costs_nobody_knows_what_until_it_is_corrected() -> None:
    call = make_call(**UNPRICED)
    assert current_cost(call) is None
    adjusted(call, 0)
    assert current_cost(call) == 0
