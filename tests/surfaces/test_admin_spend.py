"""The spend page, and the queue of what waits for a price."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from completions import ledger
from completions.admin.amounts import rounded_dollars, sum_dollars
from completions.admin.charts import Series, stacked, ticks
from completions.models import Adjustment, UsageRollup
from completions.repricing import unpriced
from tests.completions.calls import UNPRICED, make_call, set_price
from tests.factories import make_key, make_project, make_provider, make_staff

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
SPEND = "/admin/completions/completion/spend/"
CSV = "/admin/completions/completion/spend.csv"
QUEUE = "/admin/completions/completion/unpriced/"
DOLLAR = 10**9


@pytest.fixture
def ada(client: Client) -> Client:
    """A browser signed in as a superuser."""
    client.force_login(make_staff(), backend=BACKEND)
    return client


@pytest.fixture
def clerk(client: Client) -> Client:
    """A browser signed in as staff who may look at calls and nothing else."""
    user = make_staff("clerk")
    user.is_superuser = False
    user.save()
    user.user_permissions.add(Permission.objects.get(codename="view_completion"))
    client.force_login(user, backend=BACKEND)
    return client


def make_sum(days_ago: int = 0, cost: int = DOLLAR, **fields: Any) -> UsageRollup:
    noon = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    values: dict[str, Any] = {
        "hour": noon - timedelta(days=days_ago), "project_id": 1, "provider_slug": "openai",
        "model": "gpt-4o",
        "state": "ok", "calls": 2, "prompt_tokens": 100, "completion_tokens": 10, "cost_nano_usd": cost,
    }  # fmt: skip
    return UsageRollup.objects.create(**(values | fields))


def table(page: Any, title: str) -> list[tuple[str, str, str]]:
    found = next(table for table in page.context["tables"] if table["title"] == title)
    return [(line["name"], line["cost"], line["share"]) for line in found["lines"]]


def test_spend_is_shown_by_model_provider_project_and_key(ada: Client) -> None:
    project = make_project("web")
    key, _ = make_key(project, "checkout")
    make_sum(project_id=project.pk, api_key_id=key.pk, cost=3 * DOLLAR)
    make_sum(1, project_id=project.pk, model="small", provider_slug="local", cost=DOLLAR + 1)
    page = ada.get(SPEND)
    assert (tile := page.context["tiles"][0])["value"] == "$4.00"
    assert tile["exact"] == "$4.000000001"
    assert table(page, "Model") == [
        ("gpt-4o", "$3.00", "74.9 %"),
        ("small", sum_dollars(DOLLAR + 1), "25.0 %"),
    ]
    assert table(page, "Provider") == [
        ("openai", "$3.00", "74.9 %"),
        ("local", sum_dollars(DOLLAR + 1), "25.0 %"),
    ]
    assert table(page, "Project") == [("web", sum_dollars(4 * DOLLAR + 1), "100.0 %")]
    assert table(page, "Key")[0][:2] == (f"checkout (…{key.last4})", "$3.00")


def test_the_chart_and_its_table_show_the_same_days(ada: Client) -> None:
    make_sum(0, cost=2 * DOLLAR)
    make_sum(2, model="small", cost=DOLLAR)
    page = ada.get(SPEND, {"period": "7d"})
    days = page.context["days"]
    assert [line["cost"] for line in days] == ["$2.00", "$0.00", "$1.00", *["$0.00"] * 4]
    assert page.context["legend"] == [(1, "gpt-4o"), (2, "small")]
    titles = re.findall(r"<rect[^>]*><title>([^<]*)</title>", page.text)
    today = timezone.localdate()
    assert f"{today:%b} {today.day}, gpt-4o: $2.00" in titles
    assert len(titles) == 4  # two bars, in a wide and a narrow chart
    assert "<desc" in page.text
    assert "US dollars" in page.text


def test_the_period_ends_today_or_with_the_last_month(ada: Client) -> None:
    make_sum(0)
    make_sum(8)
    make_sum(70)
    spent = {
        period: ada.get(SPEND, {"period": period}).context["tiles"][0]["value"]
        for period in ("7d", "30d", "90d", "nonsense")
    }
    assert spent == {"7d": "$1.00", "30d": "$2.00", "90d": "$3.00", "nonsense": "$2.00"}
    first = timezone.localdate().replace(day=1)
    before = ada.get(SPEND, {"period": "before"}).context
    assert (before["first"], before["last"]) == (
        (first - timedelta(days=1)).replace(day=1),
        first - timedelta(days=1),
    )


@pytest.mark.parametrize(
    ("nano", "told"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (12_345, "$0.0000123"),
        (19_280_000, "$0.0193"),
        (999_600_000, "$1.00"),
        (DOLLAR + 4_999_999, "$1.00"),
        (34_619_132_406, "$34.62"),
        (-2_626_218_098, "-$2.63"),
    ],
)
def test_a_sum_is_told_to_the_cent_or_in_three_digits(nano: int, told: str) -> None:
    assert rounded_dollars(nano) == told


def test_the_exact_sum_is_under_the_pointer() -> None:
    assert sum_dollars(DOLLAR + 1) == '<span title="$1.000000001">$1.00</span>'


def test_more_groups_than_colours_share_the_last_one(ada: Client) -> None:
    for number in range(9):
        make_sum(model=f"model-{number}", cost=(9 - number) * DOLLAR)
    legend = ada.get(SPEND).context["legend"]
    assert [name for _, name in legend] == [f"model-{number}" for number in range(6)] + ["3 others"]


def test_one_project_can_be_looked_at_alone(ada: Client) -> None:
    web, shop = make_project("web"), make_project("shop")
    make_sum(project_id=web.pk)
    make_sum(project_id=shop.pk, cost=5 * DOLLAR)
    page = ada.get(SPEND, {"project": "web", "by": "provider"})
    assert page.context["tiles"][0]["value"] == "$1.00"
    assert "project=web" in page.context["csv_query"]


def test_what_the_cache_saved_is_shown_in_all_by_day_and_by_group(ada: Client) -> None:
    make_sum(0, cached_calls=1, saved_nano_usd=3 * DOLLAR)
    make_sum(1, model="small")
    page = ada.get(SPEND, {"period": "7d"})
    tile = page.context["tiles"][-1]
    assert (tile["name"], tile["value"], tile["note"]) == (
        "Saved by the cache", "$3.00", "1 call, 25.0 % of all",
    )  # fmt: skip
    assert [line["saved"] for line in page.context["days"]] == ["$3.00", *["-"] * 6]
    models = next(table for table in page.context["tables"] if table["title"] == "Model")
    assert [(line["name"], line["saved"]) for line in models["lines"]] == [
        ("gpt-4o", "$3.00"),
        ("small", "-"),
    ]
    today = timezone.localdate()
    assert f"<title>{today:%b} {today.day}, saved: $3.00</title>" in page.text


def test_without_savings_there_is_no_chart_of_them(ada: Client) -> None:
    make_sum()
    text = ada.get(SPEND).text
    assert "Spend per day by model" in text
    assert "Saved by the cache per day" not in text


def test_nothing_spent_is_said_in_words(ada: Client) -> None:
    page = ada.get(SPEND)
    assert "Nothing was spent" in page.text
    assert '<svg class="hub-chart' not in page.text


def test_unpriced_calls_are_counted_beside_the_spend(ada: Client) -> None:
    make_sum(unpriced_calls=3)
    text = ada.get(SPEND).text
    assert "3 calls without a price" in text
    assert QUEUE in text


def test_the_csv_has_a_line_a_day_and_group_and_no_formulas(ada: Client) -> None:
    make_sum(model="=HYPERLINK(1)")
    answer = ada.get(CSV, {"by": "model", "period": "7d"})
    assert answer["Content-Type"].startswith("text/csv")
    head, line = csv.reader(io.StringIO(answer.text))
    assert dict(zip(head, line, strict=True)) == {
        "day": timezone.localdate().isoformat(), "model": "'=HYPERLINK(1)", "calls": "2",
        "unpriced_calls": "0", "prompt_tokens": "100", "completion_tokens": "10", "cost_usd": "1.000000000",
        "cached_calls": "0", "saved_usd": "0.000000000",
    }  # fmt: skip


def test_spend_and_the_queue_need_the_permission_to_view_calls(client: Client) -> None:
    user = make_staff("bob")
    user.is_superuser = False
    user.save()
    client.force_login(user, backend=BACKEND)
    assert [client.get(url).status_code for url in (SPEND, CSV, QUEUE)] == [403, 403, 403]
    assert "What it cost" not in client.get("/admin/").text


def test_a_model_that_waits_for_a_price_leads_to_the_form_for_it(ada: Client) -> None:
    model = make_provider(models=("test-model",)).models.get()
    make_call(datetime(2026, 11, 2, tzinfo=UTC), **UNPRICED)
    page = ada.get(QUEUE)
    (line,) = page.context["lines"]
    assert (line["calls"], line["prompt"], line["completion"]) == ("1", "10", "5")
    assert line["add"] == f"/admin/providers/modelprice/add/?model={model.pk}&valid_from=2026-11-02"
    form = ada.get(line["add"]).text
    assert 'value="2026-11-02"' in form
    assert f'<option value="{model.pk}" selected>' in form


@pytest.mark.django_db(transaction=True)
def test_calls_that_have_a_price_by_now_are_priced_from_the_queue(ada: Client) -> None:
    make_provider(models=("test-model",))
    make_call(datetime(2026, 11, 2, tzinfo=UTC), **UNPRICED)
    assert "Price the calls that are ready" not in ada.get(QUEUE).text
    set_price("test-model", "2.5", "10")
    assert "Price the calls that are ready" in ada.get(QUEUE).text
    assert "Priced 1 call: $0.000075." in ada.post(QUEUE, follow=True).text
    assert not unpriced().exists()
    ledger.close()


def test_who_may_only_look_prices_nothing(clerk: Client) -> None:
    make_provider(models=("test-model",))
    make_call(**UNPRICED)
    set_price("test-model", "2.5", "10")
    page = clerk.get(QUEUE)
    assert page.context["lines"][0]["add"] == ""
    assert "Price the calls that are ready" not in page.text
    assert clerk.post(QUEUE).status_code == 403
    assert not Adjustment.objects.exists()


def test_the_sidebar_marks_the_page_that_is_open_alone(ada: Client) -> None:
    for url, title in ((SPEND, "Spend"), ("/admin/completions/completion/", "Completions")):
        groups = ada.get(url).context["sidebar_navigation"]
        assert [item["title"] for group in groups for item in group["items"] if item["active"]] == [title]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0, [0, 1]),
        (1, [0, 1]),
        (7, [0, 2, 4, 6, 8]),
        (23, [0, 5, 10, 15, 20, 25]),
        (10**9, [0, 200_000_000, 400_000_000, 600_000_000, 800_000_000, 10**9]),
    ],
)
def test_an_axis_has_round_steps(most: int, expected: list[int]) -> None:
    assert ticks(most) == expected


def test_bars_stand_on_the_line_and_on_each_other() -> None:
    shape = stacked(["a", "b"], [Series("x", [1, 0]), Series("y", [3, 0])], (400, 300), str)
    first, second = shape.bars
    low, high = first.segments
    assert low.y + low.height == shape.bottom
    assert high.y + high.height == pytest.approx(low.y)
    assert high.height == pytest.approx(3 * low.height)
    assert second.segments == []
    assert high.title == "a, y: 3"
