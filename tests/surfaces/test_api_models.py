"""Models, providers and their status, token counts and cost estimates on `/api`."""

import time
from decimal import Decimal
from typing import Any

import pytest

from completions import provider_status
from completions.service import LLMService
from providers.models import ModelPrice
from tests.factories import make_provider
from tests.fakes import FakeUpstream, refused_url
from tests.surfaces.api import HELLO, assert_error, client_of

pytestmark = pytest.mark.django_db(transaction=True)

COUNT = "/api/tokens/count/"
COST = "/api/costs/estimate/"


def priced_provider() -> None:
    provider = make_provider(models=({"name": "gpt-4o", "public_name": "big"}, "unpriced-model"))
    ModelPrice.objects.create(
        model=provider.models.get(name="gpt-4o"),
        prompt=Decimal("2.50"),
        cached=Decimal("1.25"),
        completion=Decimal("10.00"),
    )


def test_the_models_are_those_that_are_enabled() -> None:
    facts = {"name": "a", "context_window": 4096, "max_output": 512, "capabilities": ["chat"]}
    make_provider(models=(facts, {"name": "b", "enabled": False}))
    make_provider(slug="off", models=("c",), enabled=False)

    assert client_of().get("/api/models/").json() == {
        "results": [
            {
                "id": "a",
                "provider": "upstream",
                "context_window": 4096,
                "max_output": 512,
                "capabilities": ["chat"],
            }
        ]
    }


def test_the_models_of_one_provider() -> None:
    make_provider(slug="one", models=("a",))
    make_provider(slug="two", models=("b",))
    client = client_of()

    assert [row["id"] for row in client.get("/api/models/?provider=two").json()["results"]] == ["b"]
    assert_error(client.get("/api/models/?provider=three"), 400, "INVALID_REQUEST")


def test_the_providers_are_shown_without_address_and_key() -> None:
    make_provider(upstream_url="http://127.0.0.1:9/v1", models=("a",), api_key="sk-canary-0123456789")

    response = client_of().get("/api/providers/")

    assert response.json() == {
        "results": [
            {
                "slug": "upstream",
                "name": "Upstream",
                "type": "openai_compatible",
                "default_model": "a",
                "models": ["a"],
                "health": "unknown",
            }
        ]
    }


def test_the_status_is_a_real_call_with_the_providers_own_rate_limit() -> None:
    with FakeUpstream(key="sk-right") as upstream:
        upstream.headers = {
            "x-ratelimit-limit-requests": "100",
            "x-ratelimit-remaining-requests": "99",
            "x-ratelimit-reset-requests": "12s",
        }
        make_provider(upstream_url=upstream.url, api_key="sk-right")
        body = client_of().get("/api/providers/upstream/status/").json()
        asked = len(upstream.requests)

    assert (body["is_valid"], body["provider"]) == (True, "upstream")
    assert (body["rate_limit"]["remaining"], body["rate_limit"]["limit"]) == (99, 100)
    assert body["rate_limit"]["reset"] is not None
    assert asked >= 1


def test_a_rate_limit_that_the_provider_never_stated_is_null_and_not_invented() -> None:
    with FakeUpstream() as upstream:
        make_provider(slug="silent", upstream_url=upstream.url)
        body = client_of().get("/api/providers/silent/status/").json()

    assert body["is_valid"] is True
    assert body["rate_limit"] is None
    assert body["token_limit"] is None


def test_a_refused_key_is_not_valid_and_not_shown() -> None:
    with FakeUpstream(key="sk-right") as upstream:
        make_provider(upstream_url=upstream.url, api_key="sk-canary-0123456789")
        response = client_of().get("/api/providers/upstream/status/")

    assert response.status_code == 200
    assert response.json()["is_valid"] is False
    assert "canary" not in response.content.decode()


def test_an_unreachable_provider_is_not_valid() -> None:
    with refused_url() as url:
        make_provider(upstream_url=url)
        body = client_of().get("/api/providers/upstream/status/").json()

    assert body["is_valid"] is False
    assert body["message"]


def test_asking_again_and_again_costs_the_provider_one_call() -> None:
    client = client_of()
    with FakeUpstream() as upstream:
        make_provider(upstream_url=upstream.url)
        client.get("/api/providers/upstream/status/")
        asked = len(upstream.requests)
        for _ in range(3):
            client.get("/api/providers/upstream/status/")
        assert len(upstream.requests) == asked


def test_a_changed_provider_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of()
    with FakeUpstream(key="sk-right") as upstream:
        provider = make_provider(upstream_url=upstream.url, api_key="sk-wrong-0123456789")
        assert client.get("/api/providers/upstream/status/").json()["is_valid"] is False
        provider.api_key = "sk-right"
        provider.save()
        assert client.get("/api/providers/upstream/status/").json()["is_valid"] is True


def test_an_outcome_is_forgotten_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_status, "KEPT_SECONDS", 0.05)
    client = client_of()
    with FakeUpstream() as upstream:
        make_provider(upstream_url=upstream.url)
        client.get("/api/providers/upstream/status/")
        asked = len(upstream.requests)
        time.sleep(0.1)
        client.get("/api/providers/upstream/status/")
        assert len(upstream.requests) > asked


def test_an_unknown_provider_has_no_status() -> None:
    assert_error(client_of().get("/api/providers/nobody/status/"), 404, "NOT_FOUND")


def test_tokens_of_a_text_are_counted_by_get_and_by_post() -> None:
    priced_provider()
    client = client_of()

    expected = {"count": 2, "exact": True}
    assert client.get(COUNT, {"text": "Hello world", "model": "big"}).json() == expected
    assert client.post(COUNT, {"text": "Hello world", "model": "big"}, format="json").json() == expected


def test_tokens_of_messages_include_their_overhead() -> None:
    priced_provider()

    body = client_of().post(COUNT, {"messages": HELLO, "model": "big"}, format="json").json()

    assert body == {"count": 8, "exact": True}


def test_the_count_of_a_foreign_model_says_that_it_is_an_estimate() -> None:
    assert client_of().get(COUNT, {"text": "Hello", "model": "gemma"}).json()["exact"] is False


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": "a", "messages": HELLO},
        {"messages": []},
        {"messages": "x"},
        {"text": "a", "tools": []},
        {"text": 1.5, "modle": "x"},
    ],
)
def test_a_count_of_nothing_or_of_both_is_refused(body: dict[str, Any]) -> None:
    assert_error(client_of().post(COUNT, body, format="json"), 400, "INVALID_REQUEST")


def test_a_cost_prices_prompt_cache_and_completion_apart() -> None:
    priced_provider()
    tokens = {"prompt_tokens": "1000", "cached_tokens": "400", "completion_tokens": "100"}
    client = client_of()

    body = client.get(COST, {"model": "big", **tokens}).json()

    assert body == {
        "cost": "0.003",
        "currency": "USD",
        "model": "big",
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "exact": True,
    }
    assert client.post(COST, {"model": "big", **tokens}, format="json").json() == body


def test_a_cost_is_not_half_prompt_half_completion() -> None:
    priced_provider()
    client = client_of()

    assert client.get(COST, {"model": "big", "prompt_tokens": "1000"}).json()["cost"] == "0.0025"
    assert client.get(COST, {"model": "big", "completion_tokens": "1000"}).json()["cost"] == "0.01"


def test_the_most_that_messages_can_cost() -> None:
    priced_provider()

    body = (
        client_of().post(COST, {"model": "big", "messages": HELLO, "max_tokens": 100}, format="json").json()
    )

    assert (body["prompt_tokens"], body["completion_tokens"]) == (8, 100)
    assert (body["cost"], body["exact"]) == ("0.00102", True)


def test_an_unknown_model_is_never_priced_as_another() -> None:
    priced_provider()

    body = assert_error(
        client_of().get(COST, {"model": "gpt-unknown", "prompt_tokens": "1"}), 400, "INVALID_REQUEST"
    )

    assert body["details"]["param"] == "model"


def test_a_model_without_a_price_has_no_cost() -> None:
    priced_provider()

    body = assert_error(
        client_of().get(COST, {"model": "unpriced-model", "prompt_tokens": "1"}), 400, "INVALID_REQUEST"
    )

    assert "No price" in body["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "big"},
        {"prompt_tokens": 1},
        {"model": "big", "prompt_tokens": -1},
        {"model": "big", "prompt_tokens": "many"},
        {"model": "big", "prompt_tokens": 1, "cached_tokens": 2},
        {"model": "big", "completion_tokens": 1, "reasoning_tokens": 2},
        {"model": "big", "messages": HELLO},
        {"model": "big", "messages": HELLO, "max_tokens": 5, "prompt_tokens": 1},
    ],
)
def test_a_cost_of_tokens_that_cannot_be_is_refused(body: dict[str, Any]) -> None:
    priced_provider()

    assert_error(client_of().post(COST, body, format="json"), 400, "INVALID_REQUEST")


def test_the_surface_says_what_python_says() -> None:
    priced_provider()

    assert client_of().get(COUNT, {"text": "Hello world", "model": "big"}).json()["count"] == (
        LLMService().count_tokens("Hello world", "big")
    )
