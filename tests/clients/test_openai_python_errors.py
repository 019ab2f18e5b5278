"""The official Python client, unmodified: limits, money, failing upstreams. What it raises, and how often."""

from decimal import Decimal

import pytest
from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    InternalServerError,
    OpenAI,
    RateLimitError,
)

from completions.models import ApiKey, Budget, Completion, Project, State
from providers.models import LLMProvider
from tests.clients.conftest import Ask
from tests.clients.wire import ASK, MODEL, FrontDoor, Upstream
from tests.completions.calls import set_price
from tests.factories import make_key, make_project
from tests.fakes import refused_url
from tests.waiting import eventually

# --- limits: of the key, and of the upstream


def test_a_rate_limit_is_told_with_the_time_to_wait(client: OpenAI, door: FrontDoor) -> None:
    client = client.with_options(
        api_key=make_key(make_project("limited"), requests_per_minute=1)[1], max_retries=0
    )
    client.chat.completions.create(**ASK)

    with pytest.raises(RateLimitError) as caught:
        client.chat.completions.create(**ASK)

    headers = caught.value.response.headers
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-limit-requests"] == "1"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-should-retry" not in headers
    assert door.statuses == [200, 429]


@pytest.mark.usefixtures("busy")
def test_the_client_waits_as_told_and_then_succeeds(client: OpenAI, door: FrontDoor) -> None:
    answer = client.chat.completions.create(**ASK)

    assert answer.choices[0].message.content == "At last!"
    assert door.statuses == [200, 429, 200]
    refused, retried = door.arrivals[1:]
    assert retried.at - refused.at >= 1.0  # retry-after: 1, where the client of itself waits half a second
    assert retried.headers["x-stainless-retry-count"] == "1"


def test_the_client_gives_up_after_its_retries(client: OpenAI, door: FrontDoor, upstream: Upstream) -> None:
    ApiKey.objects.update(concurrent_calls=1)
    upstream.hangs("idle")

    with client.chat.completions.create(**ASK, stream=True) as stream:
        next(stream)
        with pytest.raises(RateLimitError):
            client.with_options(max_retries=1).chat.completions.create(**ASK)

    assert door.statuses == [200, 429, 429]
    assert len(upstream.requests) == 1


def test_a_call_that_no_wait_lets_pass_is_made_once(client: OpenAI, door: FrontDoor) -> None:
    client = client.with_options(api_key=make_key(make_project("limited"), tokens_per_minute=100)[1])

    with pytest.raises(RateLimitError, match="can never pass") as caught:
        client.chat.completions.create(**ASK, max_tokens=1000)

    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in caught.value.response.headers
    assert door.statuses == [429]


def test_the_upstreams_limit_is_retried_by_the_hub_alone(
    client: OpenAI, upstream: Upstream, door: FrontDoor
) -> None:
    upstream.refuses(429)

    with pytest.raises(RateLimitError) as caught:
        client.chat.completions.create(**ASK)

    assert caught.value.response.headers["x-should-retry"] == "false"
    assert door.statuses == [429]
    assert len(upstream.requests) == 2


# --- money


def budget(amount: str) -> Budget:
    project = Project.objects.get(slug="web")
    return Budget.objects.create(project=project, amount=Decimal(amount), period="month")


def test_a_spent_budget_is_told_in_exactly_one_call(
    ask: Ask, client: OpenAI, door: FrontDoor, upstream: Upstream
) -> None:
    set_price(MODEL, "1000", "2000")
    budget("0.000001")
    assert client.max_retries == 2

    with pytest.raises(APIStatusError) as caught:
        ask(max_tokens=10)

    error = caught.value
    assert error.status_code == 402
    assert (error.code, error.type) == ("budget_exceeded", "insufficient_quota")
    assert error.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.response.headers
    assert "0.000001" in error.message
    assert door.statuses == [402]
    assert upstream.requests == []


def test_a_budget_spent_by_calls_refuses_the_next_once(
    client: OpenAI, door: FrontDoor, upstream: Upstream
) -> None:
    set_price(MODEL, "1000", "2000")
    budget("0.04")  # a call holds at most 0.03 and costs 0.015
    client.chat.completions.create(**ASK, max_tokens=3)
    client.chat.completions.create(**ASK, max_tokens=3)

    with pytest.raises(APIStatusError) as caught:
        client.chat.completions.create(**ASK, max_tokens=3)

    assert caught.value.status_code == 402
    assert "0.03" in caught.value.message  # spent
    assert door.statuses == [200, 200, 402]
    assert len(upstream.requests) == 2


def test_a_model_without_a_price_is_told_once_on_a_budget(client: OpenAI, door: FrontDoor) -> None:
    budget("10")

    with pytest.raises(APIStatusError) as caught:
        client.chat.completions.create(**ASK)

    assert (caught.value.status_code, caught.value.code) == (402, "model_not_priced")
    assert door.statuses == [402]


# --- upstreams that fail


def test_an_upstream_that_fails_twice_is_not_asked_by_the_client_again(
    ask: Ask, upstream: Upstream, door: FrontDoor
) -> None:
    upstream.refuses(500).refuses(500)

    with pytest.raises(InternalServerError) as caught:
        ask()

    assert caught.value.status_code == 503
    assert caught.value.code == "server_is_overloaded"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert door.statuses == [503]
    assert len(upstream.requests) == 2


def test_an_upstream_that_fails_once_is_not_noticed(
    client: OpenAI, upstream: Upstream, door: FrontDoor
) -> None:
    upstream.refuses(500).answers("Hello!")

    raw = client.chat.completions.with_raw_response.create(**ASK)

    assert raw.parse().choices[0].message.content == "Hello!"
    assert raw.headers["x-llmhub-attempts"] == "2"
    assert door.statuses == [200]


def test_our_key_refused_is_never_the_callers_authentication_error(
    client: OpenAI, upstream: Upstream
) -> None:
    upstream.key = "sk-of-the-provider"

    with pytest.raises(InternalServerError) as caught:
        client.with_options(max_retries=0).chat.completions.create(**ASK)

    assert (caught.value.status_code, caught.value.code) == (502, "upstream_auth_error")


def test_an_unreachable_upstream_is_asked_for_again_by_the_client(client: OpenAI, door: FrontDoor) -> None:
    with refused_url() as url:
        LLMProvider.objects.update(base_url=url)
        with pytest.raises(InternalServerError) as caught:
            client.with_options(max_retries=1).chat.completions.create(**ASK)

    assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")
    assert door.statuses == [502, 502]


def test_nonsense_from_the_upstream_is_an_error(client: OpenAI, upstream: Upstream) -> None:
    upstream.refuses(200, "<html>It works!</html>")

    with pytest.raises(InternalServerError) as caught:
        client.with_options(max_retries=0).chat.completions.create(**ASK)

    assert (caught.value.status_code, caught.value.code) == (502, "upstream_invalid")


def test_an_error_inside_a_success_is_an_error(client: OpenAI, upstream: Upstream) -> None:
    upstream.refuses(200, {"error": {"message": "no capacity left", "type": "overloaded_error"}})

    with pytest.raises(InternalServerError, match="no capacity left"):
        client.with_options(max_retries=0).chat.completions.create(**ASK)


# --- time


def test_an_upstream_that_is_too_slow_is_an_error(ask: Ask, client: OpenAI, upstream: Upstream) -> None:
    LLMProvider.objects.update(first_token_timeout_seconds=0.2, total_timeout_seconds=0.4)
    upstream.hangs("headers")

    with pytest.raises(InternalServerError) as caught:
        ask(client.with_options(max_retries=0))

    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")


def test_a_client_that_waits_no_longer_ends_the_upstream_call(
    ask: Ask, client: OpenAI, upstream: Upstream
) -> None:
    upstream.hangs("headers")

    with pytest.raises(APITimeoutError):
        ask(client.with_options(max_retries=0, timeout=0.5))

    assert upstream.wait_for().wait_gone(1.0)
    assert eventually(lambda: Completion.objects.get().state == State.CLIENT_GONE)


def test_a_hub_that_is_not_there_is_a_connection_error() -> None:
    with (
        refused_url() as url,
        OpenAI(base_url=url, api_key="x", max_retries=0) as client,
        pytest.raises(APIConnectionError),
    ):
        client.models.list()
