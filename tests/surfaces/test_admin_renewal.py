"""A cached answer asked for anew from its page: what is kept, who pays, and what is said when it fails."""

import html
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from completions import keys
from completions.cache import index, keeping
from completions.models import CachedResponse, State
from tests.factories import make_staff
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import EMBEDDINGS, MODEL, V1, cost

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def ada(v1: V1) -> Iterator[Client]:
    """A browser signed in as a superuser."""
    browser, user = Client(), make_staff()
    browser.force_login(user, backend=BACKEND)
    yield browser
    user.delete()


def answered(v1: V1, **fields: Any) -> CachedResponse:
    """The row of an answer that is cached."""
    v1.chat(**({"temperature": 0, "max_completion_tokens": 50} | fields))
    index.flush()
    return CachedResponse.objects.get()


def refresh(ada: Client, row: CachedResponse) -> str:
    url = reverse("admin:completions_cachedresponse_refresh", args=[row.pk])
    assert "The project pays." in ada.get(url).text
    return ada.post(url, follow=True).text


def says(v1: V1, **fields: Any) -> str:
    answer = v1.chat(**({"temperature": 0, "max_completion_tokens": 50} | fields))
    assert answer.headers["x-llmhub-cache"] == "HIT"
    return str(answer.json()["choices"][0]["message"]["content"])


def test_the_fresh_answer_takes_the_place_of_the_one_before(v1: V1, ada: Client) -> None:
    v1.upstream.answers("Old.").answers("New.")
    before = answered(v1, user="kim")

    assert "A fresh answer is kept. It cost $0.0000525." in refresh(ada, before)
    after = CachedResponse.objects.get()
    assert (after.pk, after.key, after.api_key, after.end_user) == (before.pk, before.key, v1.api_key, "kim")
    assert after.completion_id != before.completion_id
    assert after.created_at > before.created_at
    assert says(v1) == "New."


def test_it_is_a_call_of_the_answers_project_in_the_ledger(v1: V1, ada: Client) -> None:
    row = answered(v1)
    refresh(ada, row)

    call = v1.rows()[0]
    assert (call.project, call.surface, call.cache, call.api_key_id) == (v1.project, "admin", "MISS", None)
    assert call.cost_nano_usd == cost(9, 3)
    assert v1.upstream.requests[1].body == v1.upstream.requests[0].body


def test_it_lasts_about_as_long_as_the_one_before(v1: V1, ada: Client) -> None:
    v1.chat({"x-llmhub-cache-ttl": "1000"}, temperature=0)
    index.flush()
    refresh(ada, CachedResponse.objects.get())

    row = CachedResponse.objects.get()
    assert 800 <= (row.expires_at - row.created_at).total_seconds() <= 1060


@pytest.mark.parametrize("mode", ["on", "forced"])
def test_it_asks_anew_whatever_made_the_call_cacheable(v1: V1, ada: Client, mode: str) -> None:
    v1.upstream.answers("Old.").answers("New.")
    v1.set(v1.api_key, cache_mode=mode)
    row = answered(v1, temperature=0.7)

    assert "A fresh answer is kept." in refresh(ada, row)
    assert says(v1, temperature=0.7) == "New."


def test_a_pinned_answer_stays_pinned(v1: V1, ada: Client) -> None:
    v1.upstream.answers("Old.").answers("New.")
    row = answered(v1)
    keeping.pin(row)
    refresh(ada, row)

    assert CachedResponse.objects.get().pinned
    assert says(v1) == "New."


def test_where_each_key_has_its_own_answers_the_key_finds_it(v1: V1, ada: Client) -> None:
    v1.set(v1.project, cache_scope="key")
    v1.upstream.answers("Old.").answers("New.")
    refresh(ada, answered(v1))

    assert says(v1) == "New."
    assert [(call.surface, call.api_key) for call in v1.rows()[1:2]] == [("admin", v1.api_key)]


def vectors(*values: float) -> dict[str, Any]:
    return {"object": "list", "data": [{"index": at, "embedding": [one]} for at, one in enumerate(values)]}


def test_an_embedding_is_asked_for_by_itself(v1: V1, ada: Client) -> None:
    v1.upstream.refuses(200, vectors(0.5, 1.5)).refuses(200, vectors(9.5))
    v1.post(EMBEDDINGS, {"model": MODEL, "input": ["a", "b"]})
    index.flush()

    assert "A fresh answer is kept." in refresh(ada, CachedResponse.objects.get(first_words="b"))
    assert v1.upstream.requests[-1].body["input"] == "b"
    again = v1.post(EMBEDDINGS, {"model": MODEL, "input": ["a", "b"]})
    assert [one["embedding"] for one in again.json()["data"]] == [[0.5], [9.5]]


class TestItSays:
    """… what went wrong, and the answer before stays."""

    def check(self, ada: Client, row: CachedResponse, problem: str) -> None:
        assert problem in html.unescape(refresh(ada, row))
        after = CachedResponse.objects.get()
        assert (after.completion_id, after.response) == (row.completion_id, row.response)

    def test_that_the_upstream_fails(self, v1: V1, ada: Client) -> None:
        row = answered(v1)
        v1.upstream.refuses(500)

        self.check(ada, row, "No fresh answer: ")
        assert v1.rows()[0].state == State.UPSTREAM_ERROR

    def test_that_the_answer_is_not_whole(self, v1: V1, ada: Client) -> None:
        row = answered(v1)
        v1.upstream.answers(finish_reason="length")

        self.check(ada, row, "it ended with 'length', so the answer before stays. The call is in the ledger.")

    def test_that_the_budget_is_spent(self, v1: V1, ada: Client) -> None:
        row = answered(v1)
        v1.set(v1.budget, amount="0.000001")

        self.check(ada, row, "budget")

    def test_that_its_content_is_not_kept(self, v1: V1, ada: Client) -> None:
        v1.set(v1.project, content_days=0)

        self.check(ada, answered(v1), "keeps no content")
        assert len(v1.upstream.requests) == 1

    @pytest.mark.parametrize(
        "change", [{"cache_group": "shop"}, {"cache_scope": "key", "name": "x"}], ids=["group", "key"]
    )
    def test_that_it_would_have_another_key(self, v1: V1, ada: Client, change: dict[str, str]) -> None:
        row = answered(v1)
        v1.set(v1.project, **change)

        self.check(ada, row, "The same request would have another key now")
        assert len(v1.upstream.requests) == 1

    def test_that_the_model_is_cached_no_more(self, v1: V1, ada: Client) -> None:
        row = answered(v1)
        v1.set(v1.model, cache_mode="off")

        self.check(ada, row, "or not be cached at all")

    def test_that_the_model_is_gone(self, v1: V1, ada: Client) -> None:
        row = answered(v1)
        v1.set(v1.model, enabled=False)

        self.check(ada, row, "does not exist")

    def test_that_the_project_is_disabled(self, v1: V1, ada: Client) -> None:
        row = answered(v1)
        v1.set(v1.project, enabled=False)

        self.check(ada, row, "is disabled: it pays for no calls")

    def test_that_its_key_is_revoked_where_it_has_its_own_answers(self, v1: V1, ada: Client) -> None:
        v1.set(v1.project, cache_scope="key")
        row = answered(v1)
        keys.revoke(v1.api_key)

        self.check(ada, row, "is revoked")
