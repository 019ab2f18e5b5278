"""Configuration as code: budgets of projects and keys, and what a key may do."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import connection

from completions import accounts
from completions.config import export_text
from completions.limits import Limits
from completions.models import ApiKey, Budget, BudgetWindow, Project
from tests.completions.config_files import KEY, SECRET, apply, problems, web

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("config_secrets")]

TEAM = """\
projects:
  - slug: web
    time_zone: Europe/Berlin
    content_days: 7
    budgets:
      - {amount: 5.00, period: day, hard: true}
      - {amount: 0.5, period: day, per_end_user: true, hard: false}
      - amount: 100
        period: month
        thresholds: [25, 90]
        webhook_url: https://hooks.example.com/spend
        webhook_secret: ${LOCAL_API_KEY}
    keys:
      - name: ci
        secret: ${CI_KEY}
        expires: 2030-01-01
        allowed_models: [gpt-4o, local/gemma]
        limits: {requests_per_minute: 60, tokens_per_minute: 100000, concurrent: 4}
        log_content: false
        budgets: [{amount: 1, period: week}]
"""


def budget(text: str) -> str:
    return web(rest=f"budgets: [{text}]")


def charge(row: Budget) -> None:
    BudgetWindow.objects.create(budget=row, starts_at=datetime(2026, 11, 1, tzinfo=UTC), ends_at=None)


class TestApplying:
    def test_sets_what_a_key_may_do(self) -> None:
        apply(TEAM)
        facts = accounts.key(ApiKey.objects.get().pk)
        assert facts is not None
        assert facts.limits == Limits(60, 100_000, 4)
        assert facts.allowed_models == {"gpt-4o", "local/gemma"}
        assert facts.log_content is False
        assert facts.expires_at == datetime(2030, 1, 1, tzinfo=UTC)

    def test_sets_the_budgets_of_a_project_and_of_its_keys(self) -> None:
        apply(TEAM)
        project = Project.objects.get()
        assert (project.time_zone, project.content_days) == ("Europe/Berlin", 7)
        rows = project.budgets.order_by("amount").values_list(
            "amount", "period", "per_end_user", "hard", "api_key__name"
        )
        assert list(rows) == [
            (Decimal("0.5"), "day", True, False, None),
            (Decimal(1), "week", False, True, "ci"),
            (Decimal(5), "day", False, True, None),
            (Decimal(100), "month", False, True, None),
        ]
        month = Budget.objects.get(period="month")
        assert (month.thresholds, month.webhook_secret) == ([25, 90], SECRET)

    def test_a_second_time_changes_nothing(self) -> None:
        apply(TEAM)
        before = [list(rows.objects.values()) for rows in (Project, ApiKey, Budget)]
        assert not apply(TEAM)
        assert not apply(TEAM, prune=True)
        assert before == [list(rows.objects.values()) for rows in (Project, ApiKey, Budget)]

    def test_changes_a_budget_in_place_and_says_what_changed(self) -> None:
        apply(TEAM)
        known = Budget.objects.get(period="day", per_end_user=False)
        shown = apply(TEAM.replace("amount: 5.00", "amount: 7.5")).render()
        assert "~ projects/web/budgets/day\n    amount: 5 -> 7.5" in shown
        assert Budget.objects.get(pk=known.pk).amount == Decimal("7.5")

    def test_names_a_budget_per_end_user_apart(self) -> None:
        assert "+ projects/web/budgets/day per_end_user" in apply(TEAM).render()

    def test_is_known_to_the_running_process_at_once(self) -> None:
        apply(web())
        project = Project.objects.get()
        assert accounts.project(project.pk) is not None
        apply(TEAM)
        facts = accounts.project(project.pk)
        assert facts is not None
        assert len(facts.budgets) == 4

    def test_a_dry_run_leaves_no_budget_behind_in_the_process(self) -> None:
        apply(web())
        project = Project.objects.get()
        apply(TEAM, dry_run=True)
        facts = accounts.project(project.pk)
        assert facts is not None
        assert facts.budgets == ()

    def test_the_secret_of_a_webhook_left_out_stays_and_is_shown_nowhere(self) -> None:
        shown = apply(TEAM).render()
        apply(TEAM.replace("        webhook_secret: ${LOCAL_API_KEY}\n", ""))
        assert Budget.objects.get(period="month").webhook_secret == SECRET
        assert SECRET not in shown + export_text()
        with connection.cursor() as cursor:
            cursor.execute("SELECT webhook_secret FROM completions_budget")
            assert SECRET not in str(cursor.fetchall())


class TestPruning:
    def test_deletes_a_budget_that_was_never_charged(self) -> None:
        apply(budget("{amount: 1, period: day}"))
        assert "nothing was ever charged" in apply(web(), prune=True).render()
        assert not Budget.objects.exists()

    def test_disables_a_budget_that_was_charged_and_naming_it_again_enables_it(self) -> None:
        apply(budget("{amount: 1, period: day}"))
        charge(Budget.objects.get())
        assert "disabled: calls were charged to it" in apply(web(), prune=True).render()
        assert not Budget.objects.get().enabled
        assert not apply(web(), prune=True)
        apply(budget("{amount: 1, period: day}"))
        assert Budget.objects.get().enabled

    def test_leaves_the_budgets_of_keys_to_their_keys(self) -> None:
        apply(TEAM)
        text = TEAM.split("    budgets:\n")[0] + "    keys:\n" + TEAM.split("    keys:\n")[1]
        apply(text, prune=True)
        assert [row.api_key for row in Budget.objects.all()] == [ApiKey.objects.get()]

    def test_keeps_a_key_whose_budget_was_charged(self) -> None:
        apply(TEAM)
        charge(Budget.objects.get(api_key__name="ci"))
        assert "revoked" in apply(web(), prune=True).render()
        assert ApiKey.objects.get().revoked_at is not None


class TestARefusal:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (budget("{period: day}"), "budgets[0].amount: missing: every budget needs it"),
            (budget("{amount: 5}"), "budgets[0].period: missing: every budget needs it"),
            (budget("{amount: lots, period: day}"), "budgets[0].amount: expected US dollars, e.g. 5.00"),
            (budget("{amount: -1, period: day}"), "budgets[0].amount: "),
            (budget("{amount: 0.0000000001, period: day}"), "budgets[0].amount: "),
            (budget("{amount: 1, period: dya}"), "did you mean 'day'?"),
            (budget("{amount: 1, period: day, hard: 3}"), "budgets[0].hard: expected true or false"),
            (budget("{amount: 1, period: day, thresholds: [80, 50]}"), "in rising order"),
            (budget("{amount: 1, period: day, thresholds: 80}"), "expected a list of percentages"),
            (budget("{amount: 1, period: day, thresholds: [0]}"), "percentages from 1 to 1000"),
            (
                budget("{amount: 1, period: day}, {amount: 2, period: day}"),
                "budgets[1].period: 'day' is given twice",
            ),
            (
                budget("{amount: 1, period: day, webhook_url: 'https://hooks.example.com/'}"),
                "budgets[0].webhook_secret: missing",
            ),
            (
                budget("{amount: 1, period: day, webhook_url: 'http://169.254.169.254/', webhook_secret: s}"),
                "budgets[0].webhook_url: ",
            ),
            (web(rest="time_zone: Mars/Olympus"), "projects[0].time_zone: 'Mars/Olympus' is no time zone"),
            (web(rest="content_days: -1"), "projects[0].content_days: expected a whole number"),
            (web("[{name: a, limits: 3}]"), "expected a mapping of requests_per_minute"),
            (
                web("[{name: a, limits: {concurrent: 0}}]"),
                "limits.concurrent: expected a whole number from 1",
            ),
            (web("[{name: a, limits: {requests: 1}}]"), "limits.requests: unknown key"),
            (web("[{name: a, allowed_models: gpt-4o}]"), "allowed_models: expected a list of texts"),
            (web("[{name: a, allowed_models: ['']}]"), "keys[0].allowed_models: Write a list of model names"),
        ],
    )
    def test_says_what_is_wrong_and_where(self, text: str, expected: str) -> None:
        assert expected in "\n".join(problems(text))
        assert not Project.objects.exists()

    def test_the_same_period_per_end_user_and_for_all_are_two_budgets(self) -> None:
        apply(budget("{amount: 1, period: day}, {amount: 2, period: day, per_end_user: true}"))
        assert Budget.objects.count() == 2


class TestExport:
    def test_applied_to_an_empty_hub_gives_the_same_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        apply(TEAM)
        text = export_text()
        Project.objects.all().delete()
        monkeypatch.setenv("WEB_CI_KEY", KEY)
        monkeypatch.setenv("WEB_MONTH_WEBHOOK_SECRET", SECRET)
        apply(text, prune=True)
        assert export_text() == text
        assert not apply(text, prune=True)

    def test_writes_only_what_is_not_a_default(self) -> None:
        apply(TEAM)
        text = export_text()
        assert text.split("projects:\n")[1] == (
            "  - slug: web\n"
            "    time_zone: Europe/Berlin\n"
            "    content_days: 7\n"
            "    budgets:\n"
            "      - period: day\n"
            "        amount: 5\n"
            "      - period: day\n"
            "        amount: 0.5\n"
            "        per_end_user: true\n"
            "        hard: false\n"
            "      - period: month\n"
            "        amount: 100\n"
            "        thresholds:\n"
            "          - 25\n"
            "          - 90\n"
            "        webhook_url: https://hooks.example.com/spend\n"
            "        webhook_secret: ${WEB_MONTH_WEBHOOK_SECRET}\n"
            "    keys:\n"
            "      - name: ci\n"
            "        secret: ${WEB_CI_KEY}\n"
            "        expires: 2030-01-01\n"
            "        allowed_models:\n"
            "          - gpt-4o\n"
            "          - local/gemma\n"
            "        limits:\n"
            "          requests_per_minute: 60\n"
            "          tokens_per_minute: 100000\n"
            "          concurrent: 4\n"
            "        log_content: false\n"
            "        budgets:\n"
            "          - period: week\n"
            "            amount: 1\n"
        )
