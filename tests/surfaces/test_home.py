"""The page at '/': what a newcomer reads, and what only staff do."""

import re

import pytest
from django.test import Client
from django.utils import timezone

from completions.ledger import new_id
from completions.models import Completion, State
from providers.models import Health, LLMProvider
from tests.factories import make_key, make_provider, make_staff

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def ada(client: Client) -> Client:
    """A browser signed in as a superuser."""
    client.force_login(make_staff(), backend=BACKEND)
    return client


def make_call() -> None:
    key, _ = make_key()
    Completion.objects.create(
        id=new_id(), request_id="r", project=key.project, surface="api", requested_model="secret-model",
        state=State.OK, created_at=timezone.now(),
    )  # fmt: skip


def test_a_newcomer_reads_how_to_make_the_first_call(client: Client) -> None:
    text = client.get("/", headers={"host": "localhost:8123"}).text
    assert "curl http://localhost:8123/api/completions/" in text
    assert 'href="/admin/"' in text
    assert 'href="/api/docs/"' in text
    assert "/v1" not in text


def test_a_stranger_learns_nothing_of_this_hub_and_costs_it_no_query(
    client: Client, django_assert_num_queries: object
) -> None:
    make_provider(slug="hidden-provider", name="Hidden provider")
    make_call()
    with django_assert_num_queries(0):  # type: ignore[operator]
        text = client.get("/").text
    assert "idden provider" not in text
    assert "secret-model" not in text
    assert ">done<" not in text
    assert "This hub now" not in text


def test_a_member_who_is_not_staff_learns_no_more_than_a_stranger(client: Client) -> None:
    make_call()
    member = make_staff("member", is_staff=True)
    member.is_staff = member.is_superuser = False
    member.save()
    client.force_login(member, backend=BACKEND)
    assert "This hub now" not in client.get("/").text


def test_staff_see_what_is_done(ada: Client) -> None:
    assert ada.get("/").text.count(">done<") == 0
    make_provider()
    assert "The demo provider answers without any network." in ada.get("/").text
    assert ada.get("/").text.count(">done<") == 1
    make_call()
    assert ada.get("/").text.count(">done<") == 3


def test_staff_see_how_the_hub_is_doing(ada: Client) -> None:
    make_provider(slug="good")
    make_provider(slug="bad")
    make_call()
    LLMProvider.objects.filter(slug="bad").update(health=Health.FAILING)
    text = ada.get("/").text
    assert "1 failing" in text
    assert "secret-model" in text


def test_the_page_needs_no_inline_code_and_forbids_it(client: Client) -> None:
    answer = client.get("/")
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", answer.text) == []


def test_every_link_leads_somewhere(ada: Client) -> None:
    links = set(re.findall(r'href="(/[^"#]*)"', ada.get("/").text))
    assert "/api/docs/" in links
    for link in links - {link for link in links if link.startswith("/static/")}:
        assert ada.get(link).status_code == 200, link


def test_a_made_up_host_is_refused_and_not_written_into_the_page(client: Client) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_only_reading_is_allowed(client: Client) -> None:
    assert client.post("/").status_code == 405


def test_a_missing_page_looks_like_the_rest(client: Client) -> None:
    answer = client.get("/no-such-page/")
    assert answer.status_code == 404
    assert "There is no such page." in answer.text
    assert "completions/page.css" in answer.text
