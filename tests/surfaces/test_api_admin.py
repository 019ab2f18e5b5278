"""`/api/admin/`: the configuration by API, for staff alone."""

import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from rest_framework.test import APIClient

from completions import keys
from completions.models import ApiKey, Completion, Project
from providers.models import LLMProvider, ModelPrice
from tests.factories import PASSWORD, make_key, make_project, make_provider, make_staff
from tests.fakes import FakeUpstream, refused_url
from tests.surfaces.api import assert_error, client_of, client_with

pytestmark = pytest.mark.django_db(transaction=True)

PROVIDERS = "/api/admin/providers/"
PROJECTS = "/api/admin/projects/"
KEYS = "/api/admin/keys/"
CANARY = "sk-canary-0123456789-WXYZ"

VALID: dict[str, Any] = {
    "slug": "openai",
    "name": "OpenAI",
    "type": "openai",
    "api_key": CANARY,
    "default_model": "gpt-4o",
    "models": [
        {"name": "gpt-4o", "prices": [{"valid_from": "2026-01-01", "prompt": "2.5", "completion": 10}]}
    ],
}


def signed_in(user: Any) -> APIClient:
    client = APIClient()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def staff() -> APIClient:
    return signed_in(make_staff())


def post(client: APIClient, url: str, body: Any = None) -> Any:
    return client.post(url, body if body is not None else {}, format="json")


def patch(client: APIClient, url: str, body: Any) -> Any:
    return client.patch(url, body, format="json")


# --- who


@pytest.mark.parametrize("url", [PROVIDERS, PROJECTS, KEYS])
def test_an_api_key_cannot_administer(url: str) -> None:
    assert_error(client_of().get(url), 403, "PERMISSION_DENIED")


@pytest.mark.parametrize("url", [PROVIDERS, PROJECTS, KEYS])
def test_nobody_is_a_401(url: str) -> None:
    assert_error(APIClient().get(url), 401, "AUTHENTICATION_FAILED")


def test_a_person_who_is_not_staff_cannot_administer() -> None:
    person = get_user_model().objects.create_user("grace", password=PASSWORD)
    make_project(members=(person,))

    assert_error(signed_in(person).get(PROVIDERS), 403, "PERMISSION_DENIED")


def test_staff_need_the_permission_of_the_model() -> None:
    clerk = get_user_model().objects.create_user("clerk", password=PASSWORD, is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_project", "view_llmprovider"]))
    make_provider(slug="local")
    client = signed_in(clerk)

    assert client.get(PROVIDERS).status_code == 200
    assert_error(client.get(KEYS), 403, "PERMISSION_DENIED")
    assert_error(post(client, PROJECTS, {"slug": "a", "name": "A"}), 403, "PERMISSION_DENIED")
    assert_error(post(client, f"{PROVIDERS}local/test/"), 403, "PERMISSION_DENIED")


# --- providers


def test_a_provider_is_added_with_its_models_and_prices(staff: APIClient) -> None:
    response = post(staff, PROVIDERS, VALID)

    assert response.status_code == 201, response.json()
    row = LLMProvider.objects.get()
    assert (row.slug, row.api_key, row.api_key_last4) == ("openai", CANARY, "WXYZ")
    price = ModelPrice.objects.get(model__name="gpt-4o")
    assert (price.valid_from, price.prompt) == (datetime.date(2026, 1, 1), Decimal("2.5"))
    assert response.json()["models"][0]["prices"][0]["completion"] == "10"


def test_the_providers_key_is_never_given_back(staff: APIClient) -> None:
    answers = [
        post(staff, PROVIDERS, VALID),
        staff.get(PROVIDERS),
        staff.get(f"{PROVIDERS}openai/"),
        patch(staff, f"{PROVIDERS}openai/", {"name": "Other"}),
    ]

    for answer in answers:
        assert "canary" not in answer.content.decode()
    shown = answers[2].json()
    assert "api_key" not in shown
    assert (shown["api_key_last4"], shown["key_state"]) == ("WXYZ", "set")


def test_a_change_without_the_key_keeps_the_key(staff: APIClient) -> None:
    post(staff, PROVIDERS, VALID)

    patch(staff, f"{PROVIDERS}openai/", {"name": "Renamed"})

    row = LLMProvider.objects.get()
    assert (row.name, row.api_key) == ("Renamed", CANARY)


def test_a_new_key_replaces_the_old(staff: APIClient) -> None:
    post(staff, PROVIDERS, VALID)

    body = patch(staff, f"{PROVIDERS}openai/", {"api_key": "sk-new-0123456789-ABCD"}).json()

    assert body["api_key_last4"] == "ABCD"
    assert LLMProvider.objects.get().api_key == "sk-new-0123456789-ABCD"


def test_a_key_that_is_needed_cannot_be_removed(staff: APIClient) -> None:
    post(staff, PROVIDERS, VALID)

    body = assert_error(patch(staff, f"{PROVIDERS}openai/", {"api_key": ""}), 400, "INVALID_REQUEST")

    assert list(body["details"]) == ["api_key"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "telepathy"}, "type"),
        ({"api_key": ""}, "api_key"),
        ({"models": []}, "models"),
        ({"default_model": "gpt-5"}, "default_model"),
        ({"type": "openai_compatible"}, "base_url"),
        ({"base_url": "ftp://example.com"}, "base_url"),
        ({"base_url": "http://169.254.169.254/v1"}, "base_url"),
        ({"preset": "nobody"}, "preset"),
        ({"default_config": {"base_url": "x"}}, "default_config"),
        ({"default_config": {"a": "\x00"}}, "default_config"),
        ({"slug": "Not A Slug"}, "slug"),
        ({"models": [{"name": "gpt-4o"}, {"name": "gpt-4o"}]}, "models"),
        ({"models": [{"name": "gpt-4o", "prices": [{"prompt": -1, "completion": 1}]}]}, "models"),
        ({"models": [{"name": "gpt-4o", "prices": [{"prompt": "0.0000000001", "completion": 1}]}]}, "models"),
        ({"models": [{"name": "gpt-4o", "capabilities": "chat"}]}, "models"),
        ({"api_keey": "x"}, "api_keey"),
        ({"name": ""}, "name"),
    ],
)
def test_a_bad_provider_is_refused_with_the_field_named(
    staff: APIClient, change: dict[str, Any], field: str
) -> None:
    body = assert_error(post(staff, PROVIDERS, VALID | change), 400, "INVALID_REQUEST")

    assert list(body["details"]) == [field]
    assert body["message"].startswith(field)
    assert not LLMProvider.objects.exists()


def test_two_providers_cannot_share_a_slug(staff: APIClient) -> None:
    make_provider(slug="openai")

    body = assert_error(post(staff, PROVIDERS, VALID), 400, "INVALID_REQUEST")

    assert list(body["details"]) == ["slug"]


def test_a_list_of_models_is_the_whole_list(staff: APIClient) -> None:
    provider = make_provider(models=("a", "b"))
    kept = provider.models.get(name="a").pk

    change = {"models": [{"name": "a", "context_window": 99}, {"name": "c"}], "default_model": "c"}
    body = patch(staff, f"{PROVIDERS}upstream/", change).json()

    assert [model["name"] for model in body["models"]] == ["a", "c"]
    assert provider.models.get(name="a").pk == kept
    assert provider.models.get(name="a").context_window == 99


def test_models_may_swap_their_public_names(staff: APIClient) -> None:
    make_provider(models=({"name": "a", "public_name": "small"}, {"name": "b", "public_name": "big"}))

    models = [{"name": "a", "public_name": "big"}, {"name": "b", "public_name": "small"}]
    response = patch(staff, f"{PROVIDERS}upstream/", {"models": models})

    assert response.status_code == 200
    assert [model["public_name"] for model in response.json()["models"]] == ["big", "small"]


def test_prices_that_are_left_out_stay(staff: APIClient) -> None:
    post(staff, PROVIDERS, VALID)

    patch(staff, f"{PROVIDERS}openai/", {"models": [{"name": "gpt-4o", "max_output": 9}]})

    assert ModelPrice.objects.count() == 1


def test_a_provider_that_is_deleted_is_gone(staff: APIClient) -> None:
    make_provider(slug="old")

    assert staff.delete(f"{PROVIDERS}old/").status_code == 204
    assert_error(staff.get(f"{PROVIDERS}old/"), 404, "NOT_FOUND")


def test_testing_the_connection_calls_the_upstream_and_keeps_the_outcome(staff: APIClient) -> None:
    with FakeUpstream(key="sk-right") as upstream:
        provider = make_provider(upstream_url=upstream.url, api_key="sk-wrong")
        body = post(staff, f"{PROVIDERS}upstream/test/").json()

    assert (body["ok"], body["auth_failed"]) == (False, True)
    provider.refresh_from_db()
    assert provider.health == "auth_failed"


def test_syncing_models_adds_them_disabled(staff: APIClient) -> None:
    with FakeUpstream(models=("a", "new")) as upstream:
        provider = make_provider(upstream_url=upstream.url, models=("a", "gone"))
        body = post(staff, f"{PROVIDERS}upstream/sync-models/").json()

    assert body == {"added": ["new"], "known": ["a"], "missing": ["gone"]}
    assert provider.models.get(name="new").enabled is False


def test_syncing_with_an_unreachable_upstream_is_a_502(staff: APIClient) -> None:
    with refused_url() as url:
        make_provider(upstream_url=url)
        response = post(staff, f"{PROVIDERS}upstream/sync-models/")

    assert_error(response, 502, "PROVIDER_ERROR")


# --- projects


def test_a_project_is_added_changed_and_listed(staff: APIClient) -> None:
    created = post(staff, PROJECTS, {"slug": "web", "name": "Web shop", "members": ["ada"]})
    patch(staff, f"{PROJECTS}web/", {"enabled": False})

    assert created.status_code == 201
    (shown,) = staff.get(PROJECTS).json()["results"]
    assert (shown["slug"], shown["members"], shown["enabled"]) == ("web", ["ada"], False)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"slug": "web"}, "name"),
        ({"slug": "a b", "name": "x"}, "slug"),
        ({"slug": "a", "name": "b", "members": ["x"]}, "members"),
    ],
)
def test_a_bad_project_is_refused_with_the_field_named(staff: APIClient, body: Any, field: str) -> None:
    assert list(assert_error(post(staff, PROJECTS, body), 400, "INVALID_REQUEST")["details"]) == [field]


def test_a_project_with_completions_is_disabled_and_not_deleted(staff: APIClient) -> None:
    from tests.surfaces.test_api_completions import row_of

    row_of(make_project("web"))

    assert_error(staff.delete(f"{PROJECTS}web/"), 409, "CONFLICT")
    assert Completion.objects.count() == 1
    make_project("empty")
    assert staff.delete(f"{PROJECTS}empty/").status_code == 204


# --- keys


def test_a_new_key_is_shown_once_and_works(staff: APIClient) -> None:
    make_project("web")

    response = post(staff, KEYS, {"project": "web", "name": "checkout"})

    body = response.json()
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert client_with(body["key"]).get("/api/models/").status_code == 200
    again = staff.get(f"{KEYS}{body['id']}/")
    assert "key" not in again.json()
    assert keys.parse(body["key"])[1] not in again.content.decode()
    assert again.json()["last4"] == body["key"][-4:]


def test_deleting_a_key_revokes_it(staff: APIClient) -> None:
    row, key = make_key()

    assert staff.delete(f"{KEYS}{row.pk}/").status_code == 204

    assert_error(client_with(key).get("/api/models/"), 401, "AUTHENTICATION_FAILED")
    assert ApiKey.objects.get().revoked_at is not None


def test_a_key_may_be_renamed_but_not_moved(staff: APIClient) -> None:
    row, _ = make_key(make_project("web"))
    make_project("other")

    assert patch(staff, f"{KEYS}{row.pk}/", {"name": "renamed"}).json()["name"] == "renamed"
    body = assert_error(patch(staff, f"{KEYS}{row.pk}/", {"project": "other"}), 400, "INVALID_REQUEST")
    assert list(body["details"]) == ["project"]


def test_two_keys_of_a_project_cannot_share_a_name(staff: APIClient) -> None:
    make_key(make_project("web"), "ci")

    assert_error(post(staff, KEYS, {"project": "web", "name": "ci"}), 400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("body", "field"),
    [({"name": "x"}, "project"), ({"project": "none", "name": "x"}, "project"), ({"project": "web"}, "name")],
)
def test_a_bad_key_is_refused_with_the_field_named(staff: APIClient, body: Any, field: str) -> None:
    make_project("web")

    assert list(assert_error(post(staff, KEYS, body), 400, "INVALID_REQUEST")["details"]) == [field]
    assert Project.objects.count() == 1
