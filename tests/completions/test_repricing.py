"""Calls of the past, priced anew: by corrections beside them, once."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from completions import ledger
from completions.arithmetic import current_cost
from completions.models import (
    Adjustment,
    AdjustmentKind,
    Budget,
    BudgetWindow,
    Charge,
    Completion,
    State,
)
from completions.repricing import Period, Repricing, Total, queue, unpriced
from providers import pricing
from providers.pricebook import PriceBook, price_on
from tests.completions.calls import COST, UNPRICED, make_attempt, make_call, set_price
from tests.factories import make_provider

pytestmark = pytest.mark.django_db(transaction=True)

DAY = datetime(2026, 11, 2, 12, tzinfo=UTC)
ALL = Period(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture(autouse=True)
def _provider() -> Any:
    make_provider(upstream_url="http://127.0.0.1:9/v1", models=("test-model", "other"))
    yield
    ledger.close()


def reprice(period: Period = ALL, **options: Any) -> dict[str, Total]:
    return {total.model: total for total in Repricing(period, **options).run()}


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("reprice", *arguments, stdout=out)
    return out.getvalue()


def test_a_call_is_corrected_to_the_price_of_its_day() -> None:
    call = make_call(DAY)
    set_price("test-model", "5", "10", "2026-11-02")
    set_price("test-model", "7", "10", "2026-11-03")
    total = reprice()["test-model"]
    assert (total.rows, total.changed, total.old_nano, total.new_nano) == (1, 1, COST, COST + 25_000)
    adjustment = Adjustment.objects.get()
    assert (adjustment.kind, adjustment.amount_nano) == (AdjustmentKind.REPRICE, 25_000)
    assert adjustment.price_source == "override 2026-11-02"
    assert pricing.load(adjustment.prices, adjustment.price_source) == PriceBook().price(
        "upstream", "test-model", DAY.date()
    )
    call.refresh_from_db()
    assert (call.cost_nano_usd, current_cost(call)) == (COST, COST + 25_000)


def test_twice_is_as_once_and_a_later_price_corrects_the_correction() -> None:
    call = make_call(DAY)
    price = set_price("test-model", "5", "10")
    reprice()
    assert reprice()["test-model"].changed == 0
    assert Adjustment.objects.count() == 1
    price.prompt = "2.5"
    price.save()
    reprice()
    assert [row.amount_nano for row in Adjustment.objects.order_by("pk")] == [25_000, -25_000]
    assert current_cost(call) == COST


def test_a_dry_run_says_the_same_and_writes_nothing() -> None:
    make_call(DAY)
    set_price("test-model", "5", "10")
    told = reprice(dry_run=True)
    assert not Adjustment.objects.exists()
    assert told == reprice()


def test_a_call_costs_the_sum_of_its_attempts() -> None:
    call = make_call(DAY, **UNPRICED)
    make_attempt(call, 1, model="other", prompt_tokens=1, completion_tokens=0, **UNPRICED)
    make_attempt(call, 2, prompt_tokens=None, completion_tokens=None, cost_nano_usd=0)
    make_attempt(call, 3, **UNPRICED)
    set_price("test-model", "2.5", "10")
    assert reprice()["test-model"].unknown == 1
    set_price("other", "4", "4")
    reprice()
    assert current_cost(call) == COST + 4_000


def test_a_call_that_turns_out_free_is_priced_at_nothing() -> None:
    call = make_call(DAY, **UNPRICED)
    set_price("test-model", "0", "0")
    reprice()
    assert current_cost(call) == 0
    assert not unpriced().exists()


def test_what_cannot_be_known_is_left_alone() -> None:
    set_price("test-model", "5", "10")
    late = make_call(DAY, state=State.RECOVERED)
    Adjustment.objects.create(
        completion=late, kind=AdjustmentKind.LATE, amount_nano=1, created_at=timezone.now()
    )
    make_call(DAY + timedelta(seconds=1), model="gone")
    make_call(DAY + timedelta(seconds=2), state=State.RUNNING)
    make_call(DAY + timedelta(seconds=3), prompt_tokens=None, completion_tokens=None, cost_nano_usd=0)
    make_call(DAY + timedelta(seconds=4), prompt_tokens=1, cached_tokens=2)  # a part beyond its whole
    totals = reprice()
    assert Adjustment.objects.filter(kind=AdjustmentKind.REPRICE).count() == 0
    assert (totals["test-model"].late, totals["test-model"].unknown, totals["gone"].unknown) == (1, 1, 1)


def test_every_window_that_paid_is_corrected_too() -> None:
    call = make_call(DAY)
    budget = Budget.objects.create(project=call.project, amount=1)
    window = BudgetWindow.objects.create(budget=budget, starts_at=DAY, spent_nano=COST)
    Charge.objects.create(completion=call, window=window, hold_nano=COST, cost_nano=COST)
    set_price("test-model", "5", "10")
    reprice()
    window.refresh_from_db()
    assert (window.spent_nano, window.held_nano) == (COST + 25_000, 0)


def test_many_calls_are_priced_batch_by_batch() -> None:
    for number in range(30):
        make_call(DAY + timedelta(seconds=number))
    set_price("test-model", "5", "10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("completions.repricing.BATCH", 7)
        assert reprice()["test-model"].changed == 30
    assert Adjustment.objects.count() == 30
    assert Completion.objects.filter(adjustments=None).count() == 0


def test_the_period_and_the_filters_choose_the_calls() -> None:
    make_call(DAY - timedelta(days=1))
    make_call(DAY, requested_model="alias")
    make_call(DAY + timedelta(hours=1), **UNPRICED)
    make_call(DAY + timedelta(days=1), provider_slug="another")

    def rows(since: datetime = DAY - timedelta(days=9), **filters: Any) -> int:
        return Period(since, **filters).rows().count()

    assert (rows(), rows(DAY), rows(until=DAY), rows(DAY, until=DAY + timedelta(days=1))) == (4, 3, 1, 2)
    assert (rows(model="alias"), rows(model="test-model"), rows(provider="another")) == (1, 4, 1)
    assert rows(unpriced_only=True) == 1


def test_the_queue_groups_what_waits_for_a_price() -> None:
    for number in range(3):
        make_call(DAY + timedelta(seconds=number), **UNPRICED)
    make_call(DAY, id=ledger.new_id(), model="gone", **UNPRICED)
    make_call()
    known, gone = queue()
    assert (known.provider, known.model, known.calls) == ("upstream", "test-model", 3)
    assert (known.prompt_tokens, known.completion_tokens, known.since) == (30, 15, DAY)
    assert known.language_model is not None
    assert not known.price_known
    assert (gone.model, gone.calls, gone.language_model) == ("gone", 1, None)
    set_price("test-model", "1", "1")
    assert queue()[0].price_known
    reprice(Period(DAY, unpriced_only=True))
    assert [waiting.model for waiting in queue()] == ["gone"]


def test_a_bundled_price_counts_where_there_is_no_override() -> None:
    provider = make_provider(slug="openai", type="openai", api_key="sk-x", models=("gpt-4o",))
    price = price_on(provider.models.get(), DAY.date())
    assert price is not None
    assert price.source.startswith("genai-prices")


def test_the_command_prints_a_line_a_model_and_their_sum() -> None:
    make_call(DAY)
    make_call(DAY + timedelta(seconds=1), model="other", **UNPRICED)
    set_price("test-model", "5", "10")
    told = [line.split() for line in command("--since", "2026-11-01", "--dry-run").splitlines()]
    assert told[1] == ["upstream/other", "1", "0", "1", "0", "0.000000000", "0.000000000", "0.000000000"]
    assert told[2] == [
        "upstream/test-model", "1", "1", "0", "0", "0.000075000", "0.000100000", "0.000025000",
    ]  # fmt: skip
    assert told[3] == ["all", "2", "1", "1", "0", "0.000075000", "0.000100000", "0.000025000"]
    assert told[4] == ["Dry", "run:", "nothing", "was", "changed."]
    assert not Adjustment.objects.exists()
    command("--since", "2026-11-01", "--model", "test-model", "--provider", "upstream")
    assert Adjustment.objects.count() == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--since", "soon"], "--since 'soon' is no day or time"),
        (["--since", "2026-11-02", "--until", "2026-11-01"], "--until is not after --since"),
        (["--since", "2026-11-02", "--provider", "none"], "there is no provider 'none'"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        command(*arguments)
