"""GET /api/usage/ and /api/budgets/: what a project used, and what is left to it."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from completions import jobs
from completions.models import Budget, BudgetAlert, BudgetWindow, Job, Project
from completions.periods import Period, span_of
from completions.report_serializers import harmless
from tests.completions.past_calls import make_call
from tests.factories import make_key, make_project, make_staff
from tests.surfaces.api import assert_error, client_of, client_with

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
UTC_ZONE = ZoneInfo("UTC")
MARCH = {"since": "2026-03-01T00:00:00Z", "until": "2026-04-01T00:00:00Z"}


def sum_up() -> None:
    Job.objects.filter(name="rollup").update(due_at=timezone.now())
    assert jobs.run_due(["rollup"]) == ["rollup"]


def usage(client: APIClient, **query: str) -> Any:
    response = client.get("/api/usage/", MARCH | query)
    assert response.status_code == 200, response.content
    return response.json()


def test_usage_is_a_series_of_days_with_a_total() -> None:
    project = make_project(time_zone="Europe/Berlin")
    make_call(project, NOON, cost_nano_usd=1_500_000_000, cached_tokens=3)
    make_call(project, NOON + HOUR, cost_nano_usd=None, state="upstream_error")
    make_call(project, NOON + DAY, cost_nano_usd=1)
    sum_up()

    body = usage(client_of(project))
    sums = {
        "calls": 2,
        "unpriced_calls": 1,
        "cached_calls": 0,
        "saved": "0",
        "prompt_tokens": 20,
        "cached_tokens": 3,
        "completion_tokens": 10,
        "reasoning_tokens": 0,
        "cost": "1.5",
        "latency_ms": 100,
    }
    assert body["results"][0] == {"start": "2026-03-10T00:00:00+01:00", "group": "", "label": "", **sums}
    assert [row["start"][:10] for row in body["results"]] == ["2026-03-10", "2026-03-11"]
    assert (body["total"]["calls"], body["total"]["cost"]) == (3, "1.500000001")
    assert body["total"].keys() == sums.keys()
    assert (body["interval"], body["group_by"], body["time_zone"]) == ("day", None, "Europe/Berlin")
    assert body["summed_until"] > "2026-03"


def test_usage_says_what_the_cache_saved() -> None:
    project = make_project()
    make_call(project, NOON, cache="HIT", cost_nano_usd=0, saved_nano_usd=1_500_000_000)
    make_call(project, NOON, cache="MISS")
    sum_up()
    client = client_of(project)

    total = usage(client)["total"]
    assert (total["calls"], total["cached_calls"], total["saved"]) == (2, 1, "1.5")
    text = client.get("/api/usage/", MARCH | {"format": "csv"}).content.decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["cached_calls"], row["saved"]) == ("1", "1.5")


@pytest.mark.parametrize(
    ("group_by", "labels"),
    [
        ("model", {"gpt-4o", "o3"}),
        ("provider", {"openai", "azure"}),
        ("user", {"", "kim"}),
        ("state", {"ok", "cancelled"}),
    ],
)
def test_usage_is_grouped_by_a_subject(group_by: str, labels: set[str]) -> None:
    project = make_project()
    make_call(project, NOON)
    make_call(project, NOON, requested_model="o3", provider_slug="azure", end_user="kim", state="cancelled")
    sum_up()

    rows = usage(client_of(project), group_by=group_by)["results"]
    assert {row["label"] for row in rows} == labels


def test_usage_by_key_names_the_keys() -> None:
    key, secret = make_key(make_project(), "checkout")
    make_call(key.project, NOON, api_key=key)
    sum_up()

    (row,) = usage(client_with(secret), group_by="key")["results"]
    assert (row["group"], row["label"]) == (str(key.pk), str(key))


@pytest.mark.parametrize(
    ("interval", "starts"),
    [
        ("hour", ["2026-03-10T12:00:00Z", "2026-03-10T13:00:00Z"]),
        ("month", ["2026-03-01T00:00:00Z"]),
    ],
)
def test_usage_comes_by_the_hour_or_the_month(interval: str, starts: list[str]) -> None:
    project = make_project()
    make_call(project, NOON)
    make_call(project, NOON + HOUR)
    sum_up()

    rows = usage(client_of(project), interval=interval)["results"]
    assert [row["start"].replace("+00:00", "Z") for row in rows] == starts


def test_usage_is_of_the_callers_project_only() -> None:
    make_call(make_project("app"), NOON)
    sum_up()

    assert usage(client_of(make_project("web")))["results"] == []


def test_usage_of_the_last_thirty_days_is_the_default() -> None:
    project = make_project()
    make_call(project, timezone.now() - 29 * DAY)
    make_call(project, timezone.now() - 31 * DAY)
    sum_up()

    assert client_of(project).get("/api/usage/").json()["total"]["calls"] == 1


def test_a_member_sees_the_usage_of_the_project_by_session() -> None:
    member = make_staff()
    project = make_project(members=(member,))
    make_call(project, NOON)
    sum_up()
    client = APIClient()
    client.force_login(member, backend="django.contrib.auth.backends.ModelBackend")

    assert usage(client)["total"]["calls"] == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"interval": "week"}, "interval"),
        ({"group_by": "project"}, "group_by"),
        ({"since": "yesterday"}, "since"),
        ({"until": "0001-01-02T00:00:00Z"}, "until"),
        ({"format": "xml"}, "format"),
        ({"from": "2026-03-01"}, "from"),
    ],
)
def test_a_wrong_parameter_is_named(query: dict[str, str], field: str) -> None:
    body = assert_error(client_of().get("/api/usage/", query), 400, "INVALID_REQUEST")

    assert field in body["details"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"interval": "hour", "since": "2025-01-01T00:00:00Z"}, "2000 buckets"),
        ({"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "since must be before until"),
    ],
)
def test_more_than_can_be_shown_is_refused_with_the_way_out(query: dict[str, str], says: str) -> None:
    body = assert_error(client_of().get("/api/usage/", query), 400, "INVALID_REQUEST")

    assert says in body["message"]
    assert body["details"] == {"param": "since"}


def test_usage_downloads_as_csv_that_no_spreadsheet_calculates() -> None:
    project = make_project("web")
    make_call(project, NOON, end_user='=HYPERLINK("http://evil.example","x")', cost_nano_usd=2_000_000)
    make_call(project, NOON, end_user='kim, "the\nfirst"', cost_nano_usd=1_000_000)
    sum_up()

    response = client_of(project).get("/api/usage/", MARCH | {"group_by": "user", "format": "csv"})
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="usage-web.csv"'
    rows = list(csv.DictReader(io.StringIO(response.content.decode(), newline="")))
    assert [row["group"] for row in rows] == [
        '\'=HYPERLINK("http://evil.example","x")',
        'kim, "the\nfirst"',
    ]
    assert rows[0]["start"] == "2026-03-10T00:00:00+00:00"
    assert (rows[0]["calls"], rows[0]["cost"]) == ("1", "0.002")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_a_cell_that_would_be_a_formula_begins_with_an_apostrophe(start: str) -> None:
    assert harmless(f"{start}1+1") == f"'{start}1+1"
    assert harmless(f"1{start}") == f"1{start}"


# --- budgets


def make_window(budget: Budget, subject: str = "", **facts: Any) -> BudgetWindow:
    """The present period of a budget, as the ledger makes it (projects are in UTC)."""
    span = span_of(Period(budget.period), timezone.now(), UTC_ZONE)
    return BudgetWindow.objects.create(
        budget=budget, subject=subject, starts_at=span.start, ends_at=span.end, **facts
    )


def budgets(client: APIClient, **query: str) -> Any:
    response = client.get("/api/budgets/", query)
    assert response.status_code == 200, response.content
    return response.json()["results"]


def make_budget(project: Project, **facts: Any) -> Budget:
    return Budget.objects.create(project=project, **({"amount": 5, "period": "day"} | facts))


def test_a_budget_says_what_is_spent_held_and_left_until_when() -> None:
    project = make_project()
    budget = make_budget(project)
    window = make_window(budget, spent_nano=1_500_000_000, held_nano=500_000_000)
    alert = BudgetAlert.objects.create(window=window, threshold=20, spent_nano=1, amount_nano=5)

    (found,) = budgets(client_of(project))
    day = span_of(Period.DAY, timezone.now(), UTC_ZONE)
    assert found == {
        "id": str(budget.pk),
        "scope": "project",
        "key": None,
        "per_end_user": False,
        "end_user": None,
        "amount": "5",
        "spent": "1.5",
        "held": "0.5",
        "left": "3",
        "hard": True,
        "period": "day",
        "starts_at": day.start.isoformat().replace("+00:00", "Z"),
        "resets_at": day.end and day.end.isoformat().replace("+00:00", "Z"),
        "alerts": [{"threshold": 20, "created_at": alert.created_at.isoformat().replace("+00:00", "Z")}],
    }


def test_a_budget_nobody_used_yet_is_whole_and_a_total_one_never_resets() -> None:
    project = make_project()
    make_budget(project, period="total")

    (found,) = budgets(client_of(project))
    assert (found["spent"], found["held"], found["left"]) == ("0", "0", "5")
    assert found["resets_at"] is None


def test_a_budget_that_is_overdrawn_has_nothing_left() -> None:
    project = make_project()
    make_window(make_budget(project, hard=False), spent_nano=9_000_000_000)

    (found,) = budgets(client_of(project))
    assert (found["left"], found["spent"]) == ("0", "9")


def test_an_earlier_period_is_not_the_present_one() -> None:
    project = make_project()
    budget = make_budget(project)
    BudgetWindow.objects.create(budget=budget, starts_at=NOON, ends_at=NOON + DAY, spent_nano=5_000_000_000)

    assert budgets(client_of(project))[0]["spent"] == "0"


def test_a_key_sees_its_own_budget_and_no_other_keys() -> None:
    project = make_project()
    key, secret = make_key(project, "mine")
    other, _ = make_key(project, "other")
    make_budget(project, period="month")
    make_budget(project, api_key=key)
    make_budget(project, api_key=other)
    make_budget(make_project("app"))
    make_budget(project, period="week", enabled=False)

    assert [(found["scope"], found["key"]) for found in budgets(client_with(secret))] == [
        ("project", None),
        ("key", "mine"),
    ]


def test_a_budget_per_end_user_is_shown_for_the_user_who_is_named() -> None:
    project = make_project()
    make_window(make_budget(project, per_end_user=True), subject="kim", spent_nano=2_000_000_000)
    client = client_of(project)

    assert [(row["end_user"], row["spent"]) for row in budgets(client)] == [(None, "0")]
    assert [(row["end_user"], row["left"]) for row in budgets(client, user="kim")] == [("kim", "3")]
    assert [(row["end_user"], row["left"]) for row in budgets(client, user="lee")] == [("lee", "5")]


def test_the_webhook_of_a_budget_is_nobody_elses_business() -> None:
    project = make_project()
    make_budget(project, webhook_url="https://hooks.example.com/T/secret", webhook_secret="s3cret")

    response = client_of(project).get("/api/budgets/")
    assert b"hooks.example.com" not in response.content
    assert b"s3cret" not in response.content


def test_usage_and_budgets_need_a_key() -> None:
    for path in ("/api/usage/", "/api/budgets/"):
        assert_error(APIClient().get(path), 401, "AUTHENTICATION_FAILED")
