"""Retention: what is old goes, what money or sums still need stays."""

from datetime import datetime, timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone
from pytest_django import Settings

from completions import jobs, prune
from completions.ledger.audit import audit
from completions.models import (
    Adjustment,
    Attempt,
    Budget,
    BudgetAlert,
    BudgetWindow,
    Charge,
    Completion,
    CompletionContent,
    Job,
    Project,
    State,
    UsageRollup,
)
from completions.periods import FOR_EVER
from tests.completions.past_calls import make_call
from tests.factories import make_project

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _ninety_days(settings: Settings) -> None:
    settings.LLMHUB_LEDGER_DAYS = 90


@pytest.fixture
def project() -> Project:
    return make_project()


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def sum_up() -> None:
    Job.objects.filter(name="rollup").update(due_at=timezone.now())
    jobs.run_due(["rollup"])


def run() -> prune.Pruned:
    return sum(prune.prune(), start=prune.Pruned())


def make_window(call: Completion, starts_at: datetime, ends_at: datetime | None, period: str) -> BudgetWindow:
    """A period of a budget that paid for `call`, and an alert it raised."""
    budget = Budget.objects.create(project=call.project, amount=1, period=period)
    Budget.objects.filter(pk=budget.pk).update(created_at=call.created_at)
    window = BudgetWindow.objects.create(budget=budget, starts_at=starts_at, ends_at=ends_at, spent_nano=1000)
    Charge.objects.create(completion=call, window=window, hold_nano=0, cost_nano=1000)
    BudgetAlert.objects.create(window=window, threshold=50, spent_nano=1000, amount_nano=10**9)
    return window


def test_prompts_and_answers_go_at_their_own_date_and_the_money_row_stays(
    project: Project, now: datetime
) -> None:
    for days in (-1, 1):
        call = make_call(project, now - DAY)
        CompletionContent.objects.create(
            completion=call, request="{}", response="{}", expires_at=now + days * DAY
        )

    assert run() == prune.Pruned(contents=1)
    assert CompletionContent.objects.get().expires_at > now
    assert Completion.objects.count() == 2


def test_old_calls_go_with_all_that_hangs_on_them_and_their_sums_stay(
    project: Project, now: datetime
) -> None:
    old, young = make_call(project, now - 100 * DAY), make_call(project, now - 80 * DAY)
    Attempt.objects.create(
        completion=old,
        number=1,
        provider_slug="openai",
        model="gpt-4o",
        state="ok",
        started_ms=0,
        latency_ms=1,
    )
    Adjustment.objects.create(completion=old, kind="reprice", amount_nano=5, created_at=now - 99 * DAY)
    CompletionContent.objects.create(completion=old, request="{}", response="{}", expires_at=now + DAY)
    sum_up()

    assert run() == prune.Pruned(calls=1)
    assert Completion.objects.get() == young
    for model in (Attempt, Adjustment, CompletionContent):
        assert not model.objects.exists()
    assert [row.cost_nano_usd for row in UsageRollup.objects.order_by("hour")] == [1005, 1000]
    assert run() == prune.Pruned()  # once is enough


def test_calls_are_kept_for_ever_unless_a_number_of_days_is_set(
    project: Project, now: datetime, settings: Settings
) -> None:
    settings.LLMHUB_LEDGER_DAYS = 0
    make_call(project, now - 5000 * DAY)
    sum_up()

    assert run() == prune.Pruned()


def test_no_call_goes_before_its_hour_is_summed(project: Project, now: datetime) -> None:
    make_call(project, now - 100 * DAY)

    assert run() == prune.Pruned()
    sum_up()
    assert run() == prune.Pruned(calls=1)


def test_no_call_goes_while_a_correction_is_not_in_the_sums(project: Project, now: datetime) -> None:
    call = make_call(project, now - 100 * DAY)
    sum_up()
    late = Adjustment.objects.create(
        completion=call, kind="reprice", amount_nano=5, created_at=timezone.now() + DAY / 1440
    )
    assert run() == prune.Pruned()

    Adjustment.objects.filter(pk=late.pk).update(created_at=now - DAY)
    assert run() == prune.Pruned(calls=1)


def test_a_running_call_stays_and_so_does_what_came_after_it(project: Project, now: datetime) -> None:
    make_call(project, now - 102 * DAY)
    make_call(project, now - 100 * DAY, state=State.RUNNING)
    make_call(project, now - 99 * DAY)
    sum_up()

    assert run() == prune.Pruned(calls=1)
    assert Completion.objects.count() == 2


def test_the_calls_of_a_period_that_has_not_ended_stay(project: Project, now: datetime) -> None:
    call = make_call(project, now - 100 * DAY)
    window = make_window(call, now - 101 * DAY, now + DAY, "month")
    sum_up()
    assert run() == prune.Pruned()

    BudgetWindow.objects.filter(pk=window.pk).update(ends_at=now - 95 * DAY)
    assert run() == prune.Pruned(calls=1, windows=1)
    assert not BudgetAlert.objects.exists()


def test_a_budget_without_end_keeps_its_calls_and_those_of_other_projects_go(
    project: Project, now: datetime
) -> None:
    kept = make_call(project, now - 100 * DAY)
    make_window(kept, FOR_EVER.start, None, "total")
    before_it = make_call(project, now - 105 * DAY)
    elsewhere = make_call(make_project("app"), now - 100 * DAY)
    sum_up()

    assert run() == prune.Pruned(calls=2)
    assert Completion.objects.get() == kept
    assert {before_it.pk, elsewhere.pk}.isdisjoint(Completion.objects.values_list("pk", flat=True))


@pytest.mark.django_db(transaction=True)  # the audit needs a transaction of its own
def test_the_ledger_still_adds_up_after_pruning(project: Project, now: datetime) -> None:
    for days, end in ((100, 80), (70, -1)):  # a past period of which a part is old, and the present one
        call = make_call(project, now - days * DAY)
        make_window(call, now - 101 * DAY if end > 0 else now - 71 * DAY, now - end * DAY, f"{days}")
    make_call(project, now - 95 * DAY)
    sum_up()

    assert audit() == []
    assert run() == prune.Pruned(calls=2)
    assert audit() == []


def test_many_calls_go_in_small_transactions(
    project: Project, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "BATCH", 2)
    for _ in range(5):
        make_call(project, now - 100 * DAY)
    sum_up()

    assert [step.calls for step in prune.prune()] == [2, 2, 1]


def test_sums_before_the_mark_are_not_made_anew_even_if_pruning_was_cut_short(
    project: Project, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "BATCH", 1)
    for _ in range(3):
        make_call(project, now - 100 * DAY)
    sum_up()
    next(prune.prune())  # killed after the first batch
    call_command("rebuild_rollups")

    assert Completion.objects.count() == 2
    assert UsageRollup.objects.get().calls == 3


def test_the_worker_prunes(project: Project, now: datetime) -> None:
    make_call(project, now - 100 * DAY)
    sum_up()

    assert jobs.run_due(["prune"]) == ["prune"]
    assert jobs.last_error("prune") == ""
    assert not Completion.objects.exists()


def test_a_dry_run_counts_and_deletes_nothing(
    project: Project, now: datetime, capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call(project, now - 100 * DAY)
    CompletionContent.objects.create(completion=call, request="{}", response="{}", expires_at=now - DAY)
    sum_up()

    call_command("prune", "--dry-run")
    call_command("prune")
    assert capsys.readouterr().out.splitlines() == [
        "Would delete 1 contents, 1 calls, 0 ended budget periods and 0 cached answers.",
        "Deleted 1 contents, 1 calls, 0 ended budget periods and 0 cached answers.",
    ]
