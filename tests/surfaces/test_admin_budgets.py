"""The admin's pages for budgets and for what keys may do."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from completions import keys
from completions.admin.standing import Standing, current_span
from completions.errors import AuthenticationError
from completions.models import ApiKey, Budget, BudgetAlert, BudgetWindow, Project
from providers.fields import Ciphertext
from tests.factories import make_key, make_project, make_staff

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
BUDGETS = "/admin/completions/budget/"
ADD = f"{BUDGETS}add/"
KEYS = "/admin/completions/apikey/"
CANARY = "a-webhook-secret-that-is-never-shown"
DOLLAR = 10**9
NO_INLINES = {"budgets-TOTAL_FORMS": 0, "budgets-INITIAL_FORMS": 0}


@pytest.fixture
def ada(client: Client) -> Client:
    client.force_login(make_staff(), backend=BACKEND)
    return client


def make_budget(project: Project | None = None, **facts: Any) -> Budget:
    values: dict[str, Any] = {"amount": Decimal(5), "period": "day"}
    return Budget.objects.create(project=project or make_project(), **(values | facts))


def window(budget: Budget, *, spent: float = 0, held: float = 0, subject: str = "") -> BudgetWindow:
    span = current_span(budget)
    return BudgetWindow.objects.create(
        budget=budget, subject=subject, starts_at=span.start, ends_at=span.end,
        spent_nano=int(spent * DOLLAR), held_nano=int(held * DOLLAR),
    )  # fmt: skip


def page(row: Any) -> str:
    return reverse(f"admin:completions_{row._meta.model_name}_change", args=[row.pk])


def filled(**changes: Any) -> dict[str, Any]:
    values = {
        "amount": "5", "period": "day", "hard": "on", "enabled": "on", "thresholds": "50, 80, 100",
        "webhook_url": "", "webhook_secret": "", "project": "", "api_key": "",
    }  # fmt: skip
    return values | changes


def errors(answer: Any) -> set[str]:
    assert answer.status_code == 200
    return set(answer.context["adminform"].form.errors)


class TestTheList:
    def test_says_what_is_spent_held_and_left(self, ada: Client) -> None:
        window(make_budget(), spent=2.1, held=0.5)
        text = ada.get(BUDGETS).text
        assert "$2.10 spent · $0.50 held · $2.40 left of $5.00" in text
        assert 'class="budget-bar-spent" width="42.0"' in text
        assert 'class="budget-bar-held" x="42.0" width="10.0"' in text

    def test_a_new_budget_is_all_left(self, ada: Client) -> None:
        make_budget()
        assert "$0.00 spent · $5.00 left of $5.00" in ada.get(BUDGETS).text

    def test_what_was_spent_in_an_earlier_period_does_not_count(self, ada: Client) -> None:
        budget = make_budget()
        earlier = current_span(budget).start - timedelta(days=1)
        BudgetWindow.objects.create(
            budget=budget, starts_at=earlier, ends_at=earlier + timedelta(days=1), spent_nano=3 * DOLLAR
        )
        assert "$0.00 spent" in ada.get(BUDGETS).text

    def test_a_budget_per_end_user_shows_who_used_most(self, ada: Client) -> None:
        budget = make_budget(per_end_user=True)
        window(budget, spent=1, subject="ann")
        window(budget, spent=2, held=0.25, subject="bob")
        text = ada.get(BUDGETS).text
        assert "$2.25 by the end user who used most, of $5.00; 2 end users" in text
        assert "Web, each end user" in text

    def test_tells_hard_soft_and_disabled_apart(self, ada: Client) -> None:
        project = make_project()
        make_budget(project)
        make_budget(project, period="week", hard=False)
        make_budget(project, period="month", enabled=False)
        text = ada.get(BUDGETS).text
        for word in ("Hard", "Soft", "Disabled"):
            assert re.search(rf">{word}</span>", text), word

    def test_needs_as_many_queries_for_many_as_for_one(
        self, ada: Client, django_assert_max_num_queries: Any
    ) -> None:
        for number in range(10):
            window(make_budget(make_project(f"p{number}")), spent=1)
        with django_assert_max_num_queries(14):
            ada.get(BUDGETS)


def test_a_bar_never_leaves_its_frame() -> None:
    for spent, held, amount in ((0, 0, 0), (9, 0, 5), (3, 9, 5), (0, 9, 5), (5, 0, 5)):
        now = Standing(amount, spent, held)
        assert 0 <= now.spent_share + now.held_share <= 100
        assert now.left >= 0


class TestThePage:
    def test_shows_earlier_periods_and_alerts(self, ada: Client) -> None:
        budget = make_budget(webhook_url="https://hooks.example.com/x", webhook_secret=CANARY)
        now = window(budget, spent=4.5)
        start = datetime(2026, 3, 1, tzinfo=UTC)
        BudgetWindow.objects.create(
            budget=budget, starts_at=start, ends_at=start + timedelta(days=1), spent_nano=DOLLAR
        )
        BudgetAlert.objects.create(
            window=now, threshold=80, spent_nano=4 * DOLLAR, amount_nano=5 * DOLLAR, tries=3,
            deliver_at=timezone.now(), last_error="503 from the webhook",
        )  # fmt: skip
        text = ada.get(page(budget)).text
        assert "2026-03-01 00:00" in text
        assert "80 %" in text
        assert "$4.00 of $5.00" in text
        assert "after 3 tries: 503 from the webhook" in text
        assert CANARY not in text

    def test_is_added_for_a_project(self, ada: Client) -> None:
        project = make_project()
        answer = ada.post(ADD, filled(project=project.pk, thresholds="90%, 25"))
        assert answer.status_code == 302
        budget = Budget.objects.get()
        assert (budget.project, budget.amount, budget.thresholds) == (project, Decimal(5), [25, 90])

    def test_is_added_for_a_key_without_naming_its_project(self, ada: Client) -> None:
        key, _ = make_key()
        assert ada.post(ADD, filled(api_key=key.pk)).status_code == 302
        assert Budget.objects.get().project == key.project

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"project": ""}, "project"),
            ({"amount": ""}, "amount"),
            ({"amount": "-1"}, "amount"),
            ({"amount": "0.0000000001"}, "amount"),
            ({"period": "year"}, "period"),
            ({"thresholds": "half"}, "thresholds"),
            ({"thresholds": "0, 50"}, "thresholds"),
            ({"webhook_url": "https://hooks.example.com/"}, "webhook_secret"),
            ({"webhook_url": "ftp://hooks.example.com/", "webhook_secret": "s"}, "webhook_url"),
            ({"webhook_url": "http://169.254.169.254/", "webhook_secret": "s"}, "webhook_url"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, ada: Client, changes: dict[str, Any], field: str) -> None:
        answer = ada.post(ADD, filled(**({"project": make_project().pk} | changes)))
        assert errors(answer) == {field}
        assert not Budget.objects.exists()

    def test_refuses_a_second_budget_of_the_same_period(self, ada: Client) -> None:
        project = make_project()
        make_budget(project)
        answer = ada.post(ADD, filled(project=project.pk))
        assert "This project has a budget of this period already." in answer.text
        assert ada.post(ADD, filled(project=project.pk, per_end_user="on")).status_code == 302

    def test_refuses_a_second_budget_of_a_key_whose_project_was_not_named(self, ada: Client) -> None:
        key, _ = make_key()
        make_budget(key.project, api_key=key)
        assert "already" in ada.post(ADD, filled(api_key=key.pk)).text

    def test_refuses_a_key_of_another_project(self, ada: Client) -> None:
        key, _ = make_key()
        other = make_project("other")
        assert errors(ada.post(ADD, filled(project=other.pk, api_key=key.pk))) == {"api_key"}

    def test_the_stored_secret_stays_where_none_is_given(self, ada: Client) -> None:
        budget = make_budget(webhook_url="https://hooks.example.com/x", webhook_secret=CANARY)
        ada.post(page(budget), filled(amount="7", webhook_url="https://hooks.example.com/y"))
        budget = Budget.objects.get()
        assert (budget.amount, budget.webhook_url) == (Decimal(7), "https://hooks.example.com/y")
        assert budget.webhook_secret == CANARY

    def test_a_secret_that_cannot_be_decrypted_keeps_nobody_from_saving(self, ada: Client) -> None:
        budget = make_budget(webhook_url="https://hooks.example.com/x", webhook_secret=CANARY)
        Budget.objects.update(webhook_secret=Ciphertext("written with a lost key"))
        url = "https://hooks.example.com/x"
        assert ada.post(page(budget), filled(amount="7", webhook_url=url)).status_code == 302
        assert Budget.objects.get().amount == Decimal(7)

    def test_whose_it_is_and_its_period_stay(self, ada: Client) -> None:
        budget = make_budget()
        other = make_project("other")
        ada.post(page(budget), filled(project=other.pk, period="month", per_end_user="on", amount="6"))
        budget.refresh_from_db()
        assert (budget.project.slug, budget.period, budget.per_end_user) == ("web", "day", False)
        assert budget.amount == Decimal(6)

    def test_one_that_was_charged_cannot_be_deleted(self, ada: Client) -> None:
        unused, charged = make_budget(), make_budget(make_project("other"))
        window(charged)
        for budget in (unused, charged):
            ada.post(reverse("admin:completions_budget_delete", args=[budget.pk]), {"post": "yes"})
        assert list(Budget.objects.all()) == [charged]

    def test_needs_the_permission(self, client: Client) -> None:
        budget = make_budget()
        clerk = make_staff("clerk", is_active=True)
        clerk.is_superuser = False
        clerk.save()
        client.force_login(clerk, backend=BACKEND)
        assert client.get(BUDGETS).status_code == 403
        assert client.get(page(budget)).status_code == 403
        assert "Budgets" not in client.get("/admin/").text


class TestAProject:
    def test_shows_its_budgets_and_those_of_its_keys(self, ada: Client) -> None:
        key, _ = make_key(name="checkout")
        window(make_budget(key.project), spent=1)
        make_budget(key.project, api_key=key)
        text = ada.get(page(key.project)).text
        assert "$1.00 spent · $4.00 left of $5.00" in text
        assert "Web: key checkout" in text

    def test_leads_to_a_new_budget_of_it(self, ada: Client) -> None:
        project = make_project()
        url = reverse("admin:completions_project_new_budget", args=[project.pk])
        form = ada.get(url, follow=True).context["adminform"].form
        assert str(form["project"].value()) == str(project.pk)


class TestAKey:
    def test_is_made_with_its_limits_and_models(self, ada: Client) -> None:
        form = {
            "project": make_project().pk, "name": "ci",
            "allowed_models": "gpt-4o\r\n local/gemma \r\n\r\ngpt-4o",
            "requests_per_minute": 60, "tokens_per_minute": "", "concurrent_calls": 2,
        }  # fmt: skip
        answer = ada.post(f"{KEYS}add/", form)
        assert answer["Cache-Control"].startswith("no-store")
        row = ApiKey.objects.get()
        assert row.allowed_models == ["gpt-4o", "local/gemma"]
        assert (row.requests_per_minute, row.tokens_per_minute, row.concurrent_calls) == (60, None, 2)
        assert row.log_content is False
        shown = re.search(r'value="(sk-llmhub-[^"]+)"', answer.text)
        assert shown is not None
        assert keys.authenticate(shown[1]).api_key_id == row.pk

    def test_shows_its_limits_models_and_budgets(self, ada: Client) -> None:
        row, _ = make_key(requests_per_minute=60, concurrent_calls=2, allowed_models=["a", "b", "c"])
        make_budget(row.project, api_key=row)
        text = ada.get(KEYS).text
        assert "60 requests/min, 2 at once" in text
        assert "a, b and 1 more" in text
        assert "$5.00 left of $5.00" in ada.get(page(row)).text

    def test_a_limit_of_nothing_is_refused(self, ada: Client) -> None:
        row, _ = make_key()
        answer = ada.post(page(row), {"name": "x", "requests_per_minute": 0} | NO_INLINES)
        assert errors(answer) == {"requests_per_minute"}

    def test_a_form_that_is_older_than_a_rotation_does_not_undo_it(self, ada: Client) -> None:
        row, _ = make_key()
        new = keys.rotate(row, timedelta(hours=1))
        ada.post(page(row), {"name": "renamed", "log_content": "on"} | NO_INLINES)
        assert ApiKey.objects.get().name == "renamed"
        assert keys.authenticate(new).api_key_id == row.pk


class TestRotating:
    def test_asks_first_and_changes_nothing(self, ada: Client) -> None:
        row, full_key = make_key()
        text = ada.get(reverse("admin:completions_apikey_rotate", args=[row.pk])).text
        assert 'name="overlap" value="24" checked' in text
        assert keys.authenticate(full_key).api_key_id == row.pk
        assert ApiKey.objects.get().old_public_id is None

    def test_shows_the_new_key_once_and_the_old_one_works_on(self, ada: Client) -> None:
        row, old = make_key()
        answer = ada.post(reverse("admin:completions_apikey_rotate", args=[row.pk]), {"overlap": "1"})
        shown = re.search(r'value="(sk-llmhub-[^"]+)"', answer.text)
        assert shown is not None
        assert answer["Cache-Control"].startswith("no-store")
        assert answer["Referrer-Policy"] == "no-referrer"
        assert "The secret before it works until" in answer.text
        assert {keys.authenticate(key).api_key_id for key in (old, shown[1])} == {row.pk}
        for url in (page(row), KEYS, reverse("admin:completions_apikey_history", args=[row.pk])):
            assert shown[1] not in ada.get(url).text

    def test_at_once_ends_the_old_one(self, ada: Client) -> None:
        row, old = make_key()
        ada.post(reverse("admin:completions_apikey_rotate", args=[row.pk]), {"overlap": "0"})
        with pytest.raises(AuthenticationError):
            keys.authenticate(old)

    def test_with_a_made_up_overlap_asks_again(self, ada: Client) -> None:
        row, _ = make_key()
        answer = ada.post(reverse("admin:completions_apikey_rotate", args=[row.pk]), {"overlap": "99999"})
        assert "Rotate, and show the new key" in answer.text

    def test_of_a_revoked_key_is_refused(self, ada: Client) -> None:
        row, _ = make_key()
        keys.revoke(row)
        url = reverse("admin:completions_apikey_rotate", args=[row.pk])
        assert "This key was revoked." in ada.post(url, {"overlap": "1"}, follow=True).text
