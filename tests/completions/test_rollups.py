"""Hourly sums: equal to the ledger whatever happened to it, and the reports made of them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from completions import jobs, reports, rollups
from completions.errors import InvalidRequestError
from completions.models import Adjustment, Completion, Job, State, UsageRollup
from completions.reports import Question, buckets, usage_series, usage_total, usage_totals
from tests.completions.past_calls import make_call
from tests.factories import make_key, make_project

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def sum_up() -> None:
    """The job's next pass, as the worker runs it."""
    Job.objects.filter(name="rollup").update(due_at=timezone.now())
    assert jobs.run_due(["rollup"]) == ["rollup"]
    assert jobs.last_error("rollup") == ""


def adjust(call: Completion, amount: int) -> None:
    Adjustment.objects.create(completion=call, kind="reprice", amount_nano=amount, created_at=timezone.now())


def test_calls_of_an_hour_with_one_project_key_model_user_and_state_are_one_sum() -> None:
    key, _ = make_key(make_project())
    facts = {"api_key": key, "end_user": "kim", "cached_tokens": 4, "reasoning_tokens": 2}
    make_call(key.project, NOON, **facts)
    make_call(key.project, NOON + 59 * MINUTE, **facts)
    make_call(key.project, NOON + HOUR, **facts)
    sum_up()

    first, second = UsageRollup.objects.order_by("hour")
    assert (first.hour, first.project_id, first.api_key_id) == (NOON, key.project_id, key.pk)
    assert (first.model, first.provider_slug, first.end_user, first.state) == (
        "gpt-4o",
        "openai",
        "kim",
        "ok",
    )
    assert (first.calls, first.prompt_tokens, first.completion_tokens) == (2, 20, 10)
    assert (first.cached_tokens, first.reasoning_tokens) == (8, 4)
    assert (first.cost_nano_usd, first.latency_ms) == (2000, 200)
    assert (second.hour, second.calls) == (NOON + HOUR, 1)


def test_what_the_cache_answered_is_counted_with_what_it_saved() -> None:
    project = make_project()
    for word in ("HIT", "STALE", "SEMANTIC", "COALESCED"):
        make_call(project, NOON, cache=word, cost_nano_usd=0, saved_nano_usd=300)
    make_call(project, NOON, cache="PARTIAL", saved_nano_usd=5)
    make_call(project, NOON, cache="MISS")
    make_call(project, NOON)
    sum_up()

    row = UsageRollup.objects.get()
    assert (row.calls, row.cached_calls, row.saved_nano_usd, row.cost_nano_usd) == (7, 4, 1205, 3000)
    total = usage_total(asking(NOON, NOON + HOUR))
    assert (total.cached_calls, total.saved_nano_usd) == (4, 1205)


@pytest.mark.parametrize(
    "other",
    [{"requested_model": "o3"}, {"provider_slug": "azure"}, {"end_user": "lee"}, {"state": "cancelled"}],
)
def test_what_differs_in_a_subject_is_summed_apart(other: dict[str, str]) -> None:
    project = make_project()
    make_call(project, NOON)
    make_call(project, NOON, **other)
    sum_up()

    assert UsageRollup.objects.count() == 2


def test_a_running_call_is_summed_when_it_ends_however_late() -> None:
    project = make_project()
    call = make_call(project, NOON, state=State.RUNNING, cost_nano_usd=None, prompt_tokens=None)
    sum_up()
    assert not UsageRollup.objects.exists()

    Completion.objects.filter(pk=call.pk).update(state=State.RECOVERED, cost_nano_usd=70)
    sum_up()
    assert UsageRollup.objects.get().cost_nano_usd == 70


def test_a_correction_reaches_the_hour_of_its_call() -> None:
    call = make_call(make_project(), NOON)
    sum_up()
    adjust(call, -300)
    sum_up()

    assert UsageRollup.objects.get().cost_nano_usd == 700


def test_an_unpriced_call_counts_as_such_until_it_is_priced() -> None:
    project = make_project()
    first = make_call(project, NOON, cost_nano_usd=None)
    make_call(project, NOON, cost_nano_usd=None)
    sum_up()
    assert (UsageRollup.objects.get().unpriced_calls, UsageRollup.objects.get().cost_nano_usd) == (2, 0)

    adjust(first, 40)
    adjust(first, 2)
    sum_up()
    assert (UsageRollup.objects.get().unpriced_calls, UsageRollup.objects.get().cost_nano_usd) == (1, 42)


def test_a_pass_without_news_writes_nothing() -> None:
    make_call(make_project(), timezone.now())
    sum_up()

    with CaptureQueriesContext(
        connection,
    ) as queries:
        rollups.sum_hour(UsageRollup.objects.get().hour)
    assert all(query["sql"].startswith("SELECT") for query in queries)


def test_old_hours_are_not_looked_at_again() -> None:
    make_call(make_project(), NOON)
    sum_up()
    UsageRollup.objects.update(calls=7)
    sum_up()

    assert UsageRollup.objects.get().calls == 7


def test_a_pass_that_was_cut_short_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project()
    for hour in range(5):
        make_call(project, NOON + hour * HOUR)
    monkeypatch.setattr(jobs, "RUN_SECONDS", -1)  # no time at all
    sum_up()
    assert not UsageRollup.objects.exists()
    assert rollups.complete_until() == NOON

    monkeypatch.undo()
    assert jobs.run_due(["rollup"]) == ["rollup"]  # it was due at once
    assert UsageRollup.objects.count() == 5
    assert jobs.run_due(["rollup"]) == []


def test_changed_hours_wait_for_the_next_run_when_time_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    call = make_call(make_project(), NOON)
    sum_up()
    adjust(call, 500)
    monkeypatch.setattr(jobs, "RUN_SECONDS", -1)
    sum_up()
    monkeypatch.undo()
    Adjustment.objects.update(created_at=timezone.now() - DAY)  # it is the list that remembers, not the time
    sum_up()

    assert UsageRollup.objects.get().cost_nano_usd == 1500


def test_sums_can_be_made_anew(capsys: pytest.CaptureFixture[str]) -> None:
    project = make_project()
    make_call(project, NOON)
    make_call(project, NOON + DAY)
    sum_up()
    UsageRollup.objects.update(calls=9)

    call_command("rebuild_rollups", since="2026-03-11")
    assert [row.calls for row in UsageRollup.objects.order_by("hour")] == [9, 1]
    call_command("rebuild_rollups")
    assert [row.calls for row in UsageRollup.objects.order_by("hour")] == [1, 1]
    assert "Summed until 20" in capsys.readouterr().out


def test_sums_of_pruned_calls_stay_as_they_are() -> None:
    project, other = make_project("web"), make_project("app")
    call = make_call(project, NOON)
    make_call(project, NOON)
    make_call(other, NOON)
    sum_up()
    type(project).objects.filter(pk=project.pk).update(ledger_since=NOON + HOUR)
    call.delete()
    UsageRollup.objects.filter(project_id=other.pk).update(calls=9)
    call_command("rebuild_rollups")

    assert UsageRollup.objects.get(project_id=project.pk).calls == 2
    assert UsageRollup.objects.get(project_id=other.pk).calls == 1


# --- reports


def asking(since: datetime, until: datetime, **how: object) -> Question:
    return Question(project_ids=None, since=since, until=until, **how)  # type: ignore[arg-type]


def test_a_day_is_the_zones_own() -> None:
    project = make_project()
    make_call(project, datetime(2026, 3, 10, 22, 30, tzinfo=UTC))  # 23:30 in Berlin
    make_call(project, datetime(2026, 3, 10, 23, 30, tzinfo=UTC))  # the day after
    sum_up()

    berlin = ZoneInfo("Europe/Berlin")
    rows = usage_series(asking(NOON, NOON + DAY, zone=berlin))
    assert [(row.bucket, row.calls) for row in rows] == [
        (datetime(2026, 3, 10, tzinfo=berlin), 1),
        (datetime(2026, 3, 11, tzinfo=berlin), 1),
    ]


@pytest.mark.parametrize("interval", ["hour", "day", "month"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia"])
def test_every_row_stands_in_a_bucket_of_the_axis(interval: str, zone: str) -> None:
    project = make_project()
    start = datetime(2026, 10, 23, 5, 10, tzinfo=UTC)  # over the end of summer time
    for step in range(24):
        make_call(project, start + step * timedelta(hours=5))
    sum_up()

    question = asking(start, start + 6 * DAY, interval=interval, zone=ZoneInfo(zone))
    rows, axis = usage_series(question), buckets(question)
    assert sum(row.calls for row in rows) == 24
    assert {row.bucket for row in rows} <= set(axis)
    instants = [bucket.timestamp() for bucket in axis]
    assert instants == sorted(set(instants))


def test_groups_are_named_and_the_dearest_comes_first() -> None:
    project, other = make_project("web"), make_project("app")
    key, _ = make_key(project, "checkout")
    make_call(project, NOON, api_key=key, cost_nano_usd=5)
    make_call(other, NOON, cost_nano_usd=50)
    sum_up()

    when = (NOON, NOON + HOUR)
    assert [row.label for row in usage_totals(asking(*when, group_by="project"))] == ["app", "web"]
    assert [row.label for row in usage_totals(asking(*when, group_by="key"))] == ["", str(key)]
    assert [row.group for row in usage_totals(asking(*when, group_by="model"))] == ["gpt-4o"]


def test_only_the_projects_asked_for_are_summed() -> None:
    project, other = make_project("web"), make_project("app")
    make_call(project, NOON)
    make_call(other, NOON)
    sum_up()

    assert usage_total(Question((project.pk,), NOON, NOON + HOUR)).calls == 1
    assert usage_total(Question((), NOON, NOON + HOUR)).calls == 0
    assert usage_total(Question(None, NOON, NOON + HOUR)).calls == 2


def test_a_mean_latency_is_of_calls_not_of_hours() -> None:
    project = make_project()
    make_call(project, NOON, latency_ms=100)
    make_call(project, NOON, latency_ms=100)
    make_call(project, NOON + HOUR, latency_ms=400)
    sum_up()

    assert usage_total(asking(NOON, NOON + DAY)).latency_ms == 200


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (asking(NOON, NOON), "since must be before until"),
        (asking(NOON - 200 * DAY, NOON, interval="hour"), "more than 2000 buckets of one hour"),
        (asking(datetime(1, 1, 1, tzinfo=UTC), NOON, interval="month"), "between the years 1971 and 8999"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(question: Question, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        usage_series(question)


def test_more_rows_than_can_be_shown_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project()
    for user in ("kim", "lee", "max"):
        make_call(project, NOON, end_user=user)
    sum_up()
    monkeypatch.setattr(reports, "MOST_ROWS", 2)

    with pytest.raises(InvalidRequestError, match="more than 2 rows"):
        usage_series(asking(NOON, NOON + HOUR, group_by="user"))
