"""`/api/admin/`: budgets, and what keys and projects may do."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from rest_framework.test import APIClient

from completions import keys
from completions.models import ApiKey, Budget, BudgetWindow, Project
from tests.factories import make_key, make_project, make_staff
from tests.surfaces.api import assert_error, client_with
from tests.surfaces.test_api_admin import KEYS, PROJECTS, patch, post, signed_in

pytestmark = pytest.mark.django_db

BUDGETS = "/api/admin/budgets/"
CANARY = "a-webhook-secret-that-is-never-shown"
DAY = {"project": "web", "amount": "5.00", "period": "day"}


@pytest.fixture
def staff() -> APIClient:
    return signed_in(make_staff())


def details(response: Any) -> list[str]:
    return list(assert_error(response, 400, "INVALID_REQUEST")["details"])


class TestBudgets:
    def test_are_added_listed_and_changed(self, staff: APIClient) -> None:
        make_project("web")
        created = post(staff, BUDGETS, DAY | {"hard": False, "thresholds": [90]})
        assert created.status_code == 201
        url = f"{BUDGETS}{created.json()['id']}/"
        assert patch(staff, url, {"amount": "7.5", "enabled": False}).status_code == 200
        (shown,) = staff.get(BUDGETS).json()["results"]
        assert (shown["project"], shown["amount"], shown["period"]) == ("web", "7.5", "day")
        assert (shown["hard"], shown["thresholds"], shown["enabled"]) == (False, [90], False)
        assert Budget.objects.get().amount == Decimal("7.5")

    def test_may_be_of_a_key(self, staff: APIClient) -> None:
        row, _ = make_key(make_project("web"))
        assert post(staff, BUDGETS, DAY | {"api_key": row.pk}).json()["api_key"] == row.pk
        assert Budget.objects.get().api_key == row

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"amount": "-1"}, "amount"),
            ({"amount": "much"}, "amount"),
            ({"amount": "0.0000000001"}, "amount"),
            ({"period": "year"}, "period"),
            ({"period": None}, "period"),
            ({"project": "none"}, "project"),
            ({"api_key": 12345}, "api_key"),
            ({"thresholds": [0]}, "thresholds"),
            ({"thresholds": "50"}, "thresholds"),
            ({"webhook_url": "https://hooks.example.com/"}, "webhook_secret"),
            ({"webhook_url": "http://169.254.169.254/", "webhook_secret": "s"}, "webhook_url"),
            ({"spent": 1}, "spent"),
            ({"id": "x"}, "id"),
        ],
    )
    def test_that_make_no_sense_are_refused_with_the_field_named(
        self, staff: APIClient, change: Any, field: str
    ) -> None:
        make_project("web")
        if field == "id":  # read-only: taken for nothing
            assert post(staff, BUDGETS, DAY | change).json()["id"] != "x"
            return
        assert details(post(staff, BUDGETS, DAY | change)) == [field]
        assert not Budget.objects.exists()

    def test_twice_of_the_same_period_are_refused(self, staff: APIClient) -> None:
        make_project("web")
        post(staff, BUDGETS, DAY)
        assert details(post(staff, BUDGETS, DAY)) == ["period"]
        assert post(staff, BUDGETS, DAY | {"per_end_user": True}).status_code == 201

    def test_of_a_key_of_another_project_are_refused(self, staff: APIClient) -> None:
        make_project("web")
        row, _ = make_key(make_project("other"))
        assert details(post(staff, BUDGETS, DAY | {"api_key": row.pk})) == ["api_key"]

    @pytest.mark.parametrize("change", [{"period": "week"}, {"per_end_user": True}, {"project": "other"}])
    def test_keep_their_owner_and_period(self, staff: APIClient, change: Any) -> None:
        make_project("web")
        make_project("other")
        url = f"{BUDGETS}{post(staff, BUDGETS, DAY).json()['id']}/"
        assert details(patch(staff, url, change)) == list(change)
        assert staff.put(url, DAY | {"amount": "6"}, format="json").status_code == 200

    def test_never_show_the_secret_of_their_webhook(self, staff: APIClient) -> None:
        make_project("web")
        hook = {"webhook_url": "https://hooks.example.com/", "webhook_secret": CANARY}
        created = post(staff, BUDGETS, DAY | hook)
        url = f"{BUDGETS}{created.json()['id']}/"
        changed = patch(staff, url, {"webhook_url": "https://hooks.example.com/2"})
        assert CANARY not in created.text + changed.text + staff.get(url).text + staff.get(BUDGETS).text
        assert Budget.objects.get().webhook_secret == CANARY

    def test_that_were_charged_are_disabled_and_not_deleted(self, staff: APIClient) -> None:
        make_project("web")
        url = f"{BUDGETS}{post(staff, BUDGETS, DAY).json()['id']}/"
        BudgetWindow.objects.create(
            budget=Budget.objects.get(), starts_at=datetime(2026, 11, 1, tzinfo=UTC), ends_at=None
        )
        assert_error(staff.delete(url), 409, "CONFLICT")
        BudgetWindow.objects.all().delete()
        assert staff.delete(url).status_code == 204

    def test_are_not_for_callers(self) -> None:
        _, key = make_key()
        assert_error(client_with(key).get(BUDGETS), 403, "PERMISSION_DENIED")


class TestKeys:
    def test_are_made_with_their_limits(self, staff: APIClient) -> None:
        make_project("web")
        facts = {
            "allowed_models": ["gpt-4o"], "requests_per_minute": 60, "tokens_per_minute": 1000,
            "concurrent_calls": 2, "log_content": False,
        }  # fmt: skip
        body = post(staff, KEYS, {"project": "web", "name": "ci"} | facts).json()
        assert facts.items() <= body.items()
        row = ApiKey.objects.get()
        assert {name: getattr(row, name) for name in facts} == facts
        assert patch(staff, f"{KEYS}{row.pk}/", {"requests_per_minute": None}).status_code == 200
        assert ApiKey.objects.get().requests_per_minute is None

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"requests_per_minute": 0}, "requests_per_minute"),
            ({"concurrent_calls": -1}, "concurrent_calls"),
            ({"allowed_models": "gpt-4o"}, "allowed_models"),
            ({"allowed_models": [""]}, "allowed_models"),
            ({"allowed_models": ["\x00"]}, "allowed_models"),
            ({"secret_hmac": "x"}, "secret_hmac"),
        ],
    )
    def test_with_limits_that_make_no_sense_are_refused(
        self, staff: APIClient, change: Any, field: str
    ) -> None:
        make_project("web")
        assert details(post(staff, KEYS, {"project": "web", "name": "ci"} | change)) == [field]

    def test_are_rotated_with_an_overlap(self, staff: APIClient) -> None:
        row, old = make_key()
        answer = post(staff, f"{KEYS}{row.pk}/rotate/", {"overlap_hours": 2})
        assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")
        body = answer.json()
        assert body["old_valid_until"] is not None
        assert {keys.authenticate(key).api_key_id for key in (old, body["key"])} == {row.pk}
        assert body["key"] not in staff.get(f"{KEYS}{row.pk}/").text

    @pytest.mark.parametrize("hours", [-1, 2161, "soon"])
    def test_are_not_rotated_with_an_overlap_out_of_bounds(self, staff: APIClient, hours: Any) -> None:
        row, _ = make_key()
        assert details(post(staff, f"{KEYS}{row.pk}/rotate/", {"overlap_hours": hours})) == ["overlap_hours"]

    def test_that_are_revoked_are_not_rotated(self, staff: APIClient) -> None:
        row, _ = make_key()
        keys.revoke(row)
        assert_error(post(staff, f"{KEYS}{row.pk}/rotate/"), 400, "INVALID_REQUEST")


def test_a_project_has_a_time_zone_and_keeps_contents_for_so_many_days(staff: APIClient) -> None:
    post(staff, PROJECTS, {"slug": "web", "name": "Web", "time_zone": "Asia/Tokyo", "content_days": 0})
    row = Project.objects.get()
    assert (row.time_zone, row.content_days) == ("Asia/Tokyo", 0)
    assert details(patch(staff, f"{PROJECTS}web/", {"time_zone": "Mars"})) == ["time_zone"]
