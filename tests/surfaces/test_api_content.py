"""GET /api/completions/{id}/: prompt and answer, to their own project alone, and the cost as it is now."""

import pytest
from django.test import Client
from django.utils import timezone

from completions.models import Adjustment
from tests.completions.calls import make_call, make_content
from tests.factories import make_key, make_project

pytestmark = pytest.mark.django_db


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def key() -> str:
    return make_key(make_project("web"))[1]


def test_a_call_shows_its_content_to_its_own_project(client: Client, key: str) -> None:
    call = make_call()
    make_content(call, request='{"messages":[{"role":"user","content":"Hi"}]}')
    shown = client.get(f"/api/completions/{call.pk}/", headers=bearer(key)).json()
    assert shown["content"] == {
        "request": {"messages": [{"role": "user", "content": "Hi"}]},
        "response": {"role": "assistant", "content": "Hello!"},
    }
    other = make_key(make_project("other"))[1]
    assert client.get(f"/api/completions/{call.pk}/", headers=bearer(other)).status_code == 404


def test_content_that_is_gone_is_null(client: Client, key: str) -> None:
    call = make_call()
    assert client.get(f"/api/completions/{call.pk}/", headers=bearer(key)).json()["content"] is None


def test_the_list_has_no_content(client: Client, key: str) -> None:
    make_content(make_call())
    (row,) = client.get("/api/completions/", headers=bearer(key)).json()["results"]
    assert "content" not in row


def test_the_cost_counts_corrections(client: Client, key: str) -> None:
    call = make_call()
    Adjustment.objects.create(completion=call, kind="reprice", amount_nano=25_000, created_at=timezone.now())
    assert client.get(f"/api/completions/{call.pk}/", headers=bearer(key)).json()["cost"] == "0.0001"
