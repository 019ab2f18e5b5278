"""What may be cached, as staff say it: in the forms of models, projects and keys, and in `/api/admin/`."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from completions.models import ApiKey, Project
from providers.models import LanguageModel
from tests.factories import make_key, make_project, make_provider, make_staff
from tests.surfaces.api import assert_error
from tests.surfaces.test_admin import BACKEND
from tests.surfaces.test_api_admin import KEYS, PROJECTS, patch, post, signed_in

pytestmark = pytest.mark.django_db

NO_BUDGETS = {"budgets-TOTAL_FORMS": 0, "budgets-INITIAL_FORMS": 0}
NO_KEYS = {"keys-TOTAL_FORMS": 0, "keys-INITIAL_FORMS": 0}
NO_PRICES = {"prices-TOTAL_FORMS": 0, "prices-INITIAL_FORMS": 0}


@pytest.fixture
def ada(client: Client) -> Client:
    """A browser signed in as a superuser."""
    client.force_login(make_staff(), backend=BACKEND)
    return client


@pytest.fixture
def staff() -> APIClient:
    return signed_in(make_staff())


def save(browser: Client, row: Any, **values: Any) -> Any:
    return browser.post(
        reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk]), values
    )


class TestForms:
    def model_form(self, **changes: Any) -> dict[str, Any]:
        return {
            "name": "m",
            "public_name": "m",
            "capabilities": "[]",
            "enabled": "on",
            **NO_PRICES,
            **changes,
        }

    def test_a_model_says_what_is_cached_and_for_how_long(self, ada: Client) -> None:
        row = make_provider(models=("m",)).models.get()
        changes = {
            "cache_mode": "on", "cache_ttl_seconds": "3600", "cache_stale_seconds": "60",
            "cache_least_similarity": "0.97",
        }  # fmt: skip
        assert save(ada, row, **self.model_form(**changes)).status_code == 302

        row.refresh_from_db()
        assert (row.cache_mode, row.cache_ttl_seconds, row.cache_stale_seconds) == ("on", 3600, 60)
        assert row.cache_least_similarity == 0.97

    def test_a_model_left_alone_does_as_the_hub(self, ada: Client, settings: Any) -> None:
        row = make_provider(models=("m",)).models.get()
        assert save(ada, row, **self.model_form(cache_stale_seconds="")).status_code == 302
        row.refresh_from_db()
        assert (row.cache_mode, row.cache_ttl_seconds, row.cache_stale_seconds) == ("", None, 0)

        url = reverse("admin:providers_languagemodel_change", args=[row.pk])
        assert "As the hub does. Deterministic calls" in ada.get(url).text
        settings.LLMHUB_CACHE = "on"
        assert "As the hub does. Every call" in ada.get(url).text

    @pytest.mark.parametrize(
        ("field", "value"),
        [("cache_ttl_seconds", "0"), ("cache_least_similarity", "0.2"), ("cache_mode", "maybe")],
    )
    def test_a_rule_that_makes_no_sense_is_refused_at_its_field(
        self, ada: Client, field: str, value: str
    ) -> None:
        row = make_provider(models=("m",)).models.get()

        assert field in save(ada, row, **self.model_form(**{field: value})).context["adminform"].form.errors

    def test_a_project_says_who_shares_its_answers(self, ada: Client) -> None:
        row = make_project()
        values = {
            "name": "Web", "slug": "web", "time_zone": "UTC", "content_days": "30", "enabled": "on",
            "cache_scope": "key", "cache_group": "shop", **NO_BUDGETS, **NO_KEYS,
        }  # fmt: skip
        assert save(ada, row, **values).status_code == 302

        row.refresh_from_db()
        assert (row.cache_scope, row.cache_group) == ("key", "shop")

    def test_a_key_says_whether_it_is_answered_from_the_cache(self, ada: Client) -> None:
        row, _ = make_key()
        values = {
            "name": "test key",
            "cache_mode": "off",
            "expires_at_0": "",
            "expires_at_1": "",
            **NO_BUDGETS,
        }
        assert "As the model says" in ada.get(f"/admin/completions/apikey/{row.pk}/change/").text
        assert save(ada, row, **values).status_code == 302

        row.refresh_from_db()
        assert row.cache_mode == "off"


class TestApi:
    def test_models_projects_and_keys_have_their_rules(self, staff: APIClient) -> None:
        rules = {"cache_mode": "forced", "cache_ttl_seconds": 60, "cache_stale_seconds": 5}
        model = {"name": "m", **rules, "cache_least_similarity": 0.9}
        provider = {"slug": "demo", "name": "Demo", "type": "demo", "default_model": "m", "models": [model]}
        assert post(staff, "/api/admin/providers/", provider).json()["models"][0].items() >= model.items()
        project = {"slug": "web", "name": "Web", "cache_scope": "key", "cache_group": "shop"}
        assert post(staff, PROJECTS, project).json().items() >= project.items()
        key = post(staff, KEYS, {"project": "web", "name": "ci", "cache_mode": "off"}).json()
        assert patch(staff, f"{KEYS}{key['id']}/", {"cache_mode": "on"}).json()["cache_mode"] == "on"

        assert LanguageModel.objects.get().cache_mode == "forced"
        assert Project.objects.get().cache_scope == "key"
        assert ApiKey.objects.get().cache_mode == "on"

    @pytest.mark.parametrize(
        ("field", "value"), [("cache_scope", "user"), ("cache_group", "Bad Group"), ("cache_mode", "on")]
    )
    def test_what_makes_no_sense_is_refused(self, staff: APIClient, field: str, value: str) -> None:
        answer = post(staff, PROJECTS, {"slug": "web", "name": "Web", field: value})

        assert field in assert_error(answer, 400, "INVALID_REQUEST")["details"]
