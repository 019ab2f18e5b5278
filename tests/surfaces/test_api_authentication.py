"""Who may call `/api`, and for which project."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone
from rest_framework.test import APIClient

from completions import keys
from tests.factories import PASSWORD, make_key, make_project, make_staff
from tests.surfaces.api import HELLO, assert_error, client_of, client_with

pytestmark = pytest.mark.django_db

WHO = "/api/providers/"


def member_client(*slugs: str, csrf: bool = False) -> APIClient:
    """A signed-in person who is a member of these projects."""
    person = get_user_model().objects.create_user("grace", password=PASSWORD)
    for slug in slugs:
        make_project(slug, members=(person,))
    client = APIClient(enforce_csrf_checks=csrf)
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    return client


def test_a_bearer_key_is_accepted() -> None:
    assert client_of().get(WHO).status_code == 200


def test_the_x_api_key_header_is_accepted() -> None:
    _, key = make_key()

    assert APIClient().get(WHO, headers={"x-api-key": key}).status_code == 200


def test_no_key_is_a_401_that_says_how_to_sign_in() -> None:
    response = APIClient().get(WHO)

    assert_error(response, 401, "AUTHENTICATION_FAILED")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_key_in_the_query_string_is_not_looked_at() -> None:
    _, key = make_key()

    assert_error(APIClient().get(WHO, {"api_key": key, "key": key}), 401, "AUTHENTICATION_FAILED")


@pytest.mark.parametrize("key", ["", "nonsense", "sk-llmhub-AAAAAAAAAAAA-" + "a" * 43, "ключ"])
def test_a_wrong_key_is_a_401(key: str) -> None:
    response = APIClient().get(WHO, headers={"Authorization": f"Bearer {key}"})

    assert_error(response, 401, "AUTHENTICATION_FAILED")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_refused_key_is_not_repeated_in_the_answer() -> None:
    _, key = make_key()
    wrong = key[:-5] + "aaaaa"

    assert wrong[10:] not in client_with(wrong).get(WHO).content.decode()


def test_a_revoked_key_is_refused() -> None:
    row, key = make_key()
    keys.revoke(row)

    assert "revoked" in assert_error(client_with(key).get(WHO), 401, "AUTHENTICATION_FAILED")["message"]


def test_an_expired_key_is_refused() -> None:
    _, key = make_key(expires_at=timezone.now() - timedelta(seconds=1))

    assert "expired" in assert_error(client_with(key).get(WHO), 401, "AUTHENTICATION_FAILED")["message"]


def test_a_key_of_a_disabled_project_is_refused() -> None:
    _, key = make_key(make_project(enabled=False))

    assert_error(client_with(key).get(WHO), 401, "AUTHENTICATION_FAILED")


def test_a_member_may_call_with_the_session() -> None:
    assert member_client("web").get(WHO).status_code == 200


def test_a_session_without_a_project_is_told_what_is_missing() -> None:
    body = assert_error(member_client().get(WHO), 403, "PERMISSION_DENIED")

    assert "member of no project" in body["message"]


def test_a_member_names_one_of_several_projects() -> None:
    client = member_client("shop", "web")

    assert client.get(WHO, headers={"X-LLMHub-Project": "web"}).status_code == 200


def test_a_member_cannot_name_the_project_of_others() -> None:
    make_project("secret")

    response = member_client("web").get(WHO, headers={"X-LLMHub-Project": "secret"})
    unknown = member_client_again(response, "unknown")

    assert_error(response, 403, "PERMISSION_DENIED")
    assert unknown["message"] == response.json()["message"]


def member_client_again(response: object, slug: str) -> dict[str, str]:
    client = APIClient()
    client.force_login(
        get_user_model().objects.get(username="grace"), backend="django.contrib.auth.backends.ModelBackend"
    )
    body: dict[str, str] = client.get(WHO, headers={"X-LLMHub-Project": slug}).json()
    return body


def test_a_superuser_may_name_any_project() -> None:
    make_project("web")
    client = APIClient()
    client.force_login(make_staff(), backend="django.contrib.auth.backends.ModelBackend")

    assert client.get(WHO, headers={"X-LLMHub-Project": "web"}).status_code == 200


def test_a_session_posts_only_with_a_csrf_token() -> None:
    client = member_client("web", csrf=True)

    response = client.post("/api/completions/", {"messages": HELLO}, format="json")

    assert "CSRF" in assert_error(response, 403, "PERMISSION_DENIED")["message"]


def test_a_key_needs_no_csrf_token() -> None:
    _, key = make_key()
    client = APIClient(enforce_csrf_checks=True)

    response = client.post(
        "/api/tokens/count/", {"text": "Hi"}, format="json", headers={"Authorization": f"Bearer {key}"}
    )

    assert response.status_code == 200
