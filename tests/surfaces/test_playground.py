"""The playground's page and where people sign in, without a browser: who may see it, and what is in it."""

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from pytest_django import Settings

from completions.models import Project
from completions.requests import CONFIG_FIELDS
from providers.models import ModelPrice
from tests.factories import PASSWORD, make_key, make_project, make_provider, make_staff

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
PAGE, SIGN_IN, PRICES = "/playground/", "/sign-in/", "/playground/prices/"


@pytest.fixture
def grace() -> Any:
    """An account that is not staff."""
    return get_user_model().objects.create_user("grace", password=PASSWORD)


@pytest.fixture
def member(client: Client, grace: Any) -> Client:
    make_project("web", members=(grace,))
    client.force_login(grace, backend=BACKEND)
    return client


def facts(client: Client) -> dict[str, Any]:
    """What the page tells its scripts."""
    found = re.search(r'<script id="facts" type="application/json">(.*?)</script>', client.get(PAGE).text)
    assert found is not None
    return dict(json.loads(found[1]))


def test_strangers_are_asked_to_sign_in(client: Client) -> None:
    answer = client.get(PAGE)
    assert (answer.status_code, answer["Location"]) == (302, "/sign-in/?next=/playground/")
    assert client.get(PRICES).status_code == 401


def test_who_signs_in_comes_to_the_playground_and_needs_not_be_staff(client: Client, grace: Any) -> None:
    answer = client.post(SIGN_IN, {"username": "grace", "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, PAGE)
    assert client.get(PAGE).status_code == 200


@pytest.mark.parametrize("where", ["https://evil.example/", "//evil.example", "javascript:alert(1)"])
def test_signing_in_leads_to_no_other_host(client: Client, grace: Any, where: str) -> None:
    answer = client.post(SIGN_IN, {"username": "grace", "password": PASSWORD, "next": where})
    assert answer["Location"] == PAGE


def test_a_wrong_password_is_told_and_after_ten_the_name_is_locked(client: Client, grace: Any) -> None:
    wrong = {"username": "grace", "password": "wrong"}
    answer = client.post(SIGN_IN, wrong)
    assert answer.status_code == 200
    assert "correct username and password" in answer.text
    for _ in range(9):
        client.post(SIGN_IN, wrong)
    assert client.post(SIGN_IN, {"username": "grace", "password": PASSWORD}).status_code == 429


@pytest.mark.parametrize("where", [f"{SIGN_IN}?next=/playground/", "/admin/login/?next=/admin/"])
@pytest.mark.parametrize(
    ("hours", "words"), [(0.25, "15 minutes"), (2, "2 hours"), (None, "staff unlock it")]
)
def test_who_is_locked_out_reads_for_how_long_and_finds_the_way_back(
    client: Client, grace: Any, settings: Settings, where: str, hours: float | None, words: str
) -> None:
    settings.AXES_COOLOFF_TIME = hours
    for _ in range(10):
        answer = client.post(where, {"username": "grace", "password": "wrong"})
    assert answer.status_code == 429
    assert words in answer.text.replace("\xa0", " ")
    assert f'href="{where}"' in answer.text
    assert "completions/page.css" in answer.text
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    assert client.get(where).status_code == 200


def test_signing_out_takes_a_post(member: Client) -> None:
    assert member.get("/sign-out/").status_code == 405
    assert member.post("/sign-out/").status_code == 302
    assert member.get(PAGE).status_code == 302


@pytest.mark.parametrize("path", [PAGE, SIGN_IN])
def test_the_pages_run_nothing_that_is_written_in_them(member: Client, path: str) -> None:
    answer = member.get(path, headers={"host": "localhost:8123"})
    policy = dict(part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == (
        "'none'",
        "'self'",
        "'self'",
    )
    assert (policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'")
    assert "unsafe" not in answer["Content-Security-Policy"]
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", answer.text) == []
    scripts = re.findall(r"<script\b([^>]*)>", answer.text)
    assert [one for one in scripts if "src=" not in one and 'type="application/json"' not in one] == []
    if path == PAGE:
        assert policy["connect-src"] == "'self' ws://localhost:8123"
        assert (policy["require-trusted-types-for"], policy["trusted-types"]) == ("'script'", "'none'")


def test_a_member_chooses_among_their_own_projects_and_a_superuser_among_all(member: Client) -> None:
    make_project("other")
    make_project("off", enabled=False)
    assert facts(member)["projects"] == [{"slug": "web", "name": "Web", "mine": True}]
    ada = Client()
    ada.force_login(make_staff(), backend=BACKEND)
    assert [(one["slug"], one["mine"]) for one in facts(ada)["projects"]] == [
        ("other", False),
        ("web", False),
    ]


def test_links_to_the_admin_are_for_those_who_may_follow_them(member: Client) -> None:
    mine = facts(member)
    assert (mine["call_url"], mine["add_provider_url"]) == (None, None)
    assert 'href="/admin/"' not in member.get(PAGE).text
    ada = Client()
    ada.force_login(make_staff(), backend=BACKEND)
    assert facts(ada)["call_url"].startswith("/admin/completions/completion/")
    assert 'href="/admin/"' in ada.get(PAGE).text


def test_parameters_have_the_bounds_that_the_api_has(member: Client) -> None:
    fields = re.findall(
        r'<input type="number"[^>]*id="p-(\w+)" min="(.+?)" max="(.+?)"', member.get(PAGE).text
    )
    assert {name for name, *_ in fields} == {
        "temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty",
    }  # fmt: skip
    for name, low, high in fields:
        schema = CONFIG_FIELDS[name].schema
        assert float(low) == max(
            schema["minimum"], -(2**53 - 1)
        )  # beyond it, a browser's numbers are not exact
        assert float(high) == min(schema["maximum"], 2**53 - 1)


def test_prices_are_of_a_million_tokens_and_null_where_none_is_known(member: Client) -> None:
    provider = make_provider(models=("priced", "unknown"), base_url="http://localhost:1")
    ModelPrice.objects.create(model=provider.models.get(name="priced"), prompt=Decimal("2.5"), completion=10)
    found = member.get(PRICES).json()
    assert {
        name: price and {kind: float(text) for kind, text in price.items()} for name, price in found.items()
    } == {
        "upstream/priced": {"prompt": 2.5, "completion": 10},
        "upstream/unknown": None,
    }


def test_prices_are_for_members_and_of_their_own_models(member: Client) -> None:
    make_provider(models=("one", "two"), base_url="http://localhost:1")
    theirs = make_project("theirs")
    assert member.get(PRICES, headers={"X-LLMHub-Project": "theirs"}).status_code == 403
    _, key = make_key(theirs, allowed_models=["two"])
    found = Client().get(PRICES, headers={"Authorization": f"Bearer {key}"}).json()
    assert found == {"upstream/two": None}
    Project.objects.get(slug="web").members.clear()
    for path in (PRICES, "/api/models/"):
        answer = member.get(path)
        assert (answer.status_code, answer.json()["code"]) == (403, "PERMISSION_DENIED")


def test_a_name_cannot_break_out_of_the_page(client: Client, grace: Any) -> None:
    make_project("evil", name="</script><script>alert(1)</script>", members=(grace,))
    grace.username = '"><img src=x onerror=alert(1)>'
    grace.save()
    client.force_login(grace, backend=BACKEND)
    text = client.get(PAGE).text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
