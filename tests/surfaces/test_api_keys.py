"""What a key may do, seen from outside: models, limits in headers, streams that end when it is revoked."""

import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import requests

from completions import keys
from completions.errors import (
    BudgetExceededError,
    ModelNotPricedError,
    PermissionDeniedError,
    RateLimitError,
    UnavailableError,
)
from completions.exceptions import error_headers
from completions.limits import LimitExceeded, Limits, MemoryLimiter
from completions.models import Budget, Completion, State
from tests.conftest import LiveHub
from tests.factories import make_key, make_provider
from tests.fakes import FakeUpstream
from tests.surfaces.api import HELLO, assert_error, bearer, client_with, events_of

pytestmark = pytest.mark.django_db(transaction=True)

COMPLETIONS = "/api/completions/"
LIMITED: dict[str, Any] = {"requests_per_minute": 2, "tokens_per_minute": 100_000}


def ask(client: Any, model: str = "test-model", **config: Any) -> Any:
    return client.post(COMPLETIONS, {"messages": HELLO, "model": model, "config": config}, format="json")


class TestAllowedModels:
    def test_only_they_are_listed(self) -> None:
        make_provider(models=("a", "b"))
        _, key = make_key(allowed_models=["b"])
        client = client_with(key)
        assert [model["id"] for model in client.get("/api/models/").json()["results"]] == ["b"]
        assert client.get("/api/providers/").json()["results"][0]["models"] == ["b"]

    def test_another_one_is_refused_exactly_as_one_that_does_not_exist(self) -> None:
        make_provider(models=("a", "b"))
        _, key = make_key(allowed_models=["b"])
        client = client_with(key)
        hidden = assert_error(ask(client, "a"), 400, "INVALID_REQUEST")
        unknown = assert_error(ask(client, "x"), 400, "INVALID_REQUEST")
        assert hidden["message"].replace("'a'", "'x'") == unknown["message"]
        assert hidden["details"] == unknown["details"]

    def test_a_refused_call_is_no_row(self) -> None:
        make_provider()
        _, key = make_key(allowed_models=["another"])
        ask(client_with(key))
        assert not Completion.objects.exists()

    def test_its_price_is_not_told_either(self) -> None:
        make_provider(models=("a",))
        _, key = make_key(allowed_models=["b"])
        answer = client_with(key).get("/api/costs/estimate/?model=a&prompt_tokens=1")
        assert_error(answer, 400, "INVALID_REQUEST")


class TestLimits:
    def test_are_said_with_every_answer_and_with_the_refusal(self) -> None:
        make_provider()
        _, key = make_key(**LIMITED)
        client = client_with(key)
        first, second, third = (ask(client, max_tokens=50) for _ in range(3))
        assert (first.status_code, second.status_code) == (200, 200)
        assert first["x-ratelimit-limit-requests"] == "2"
        assert first["x-ratelimit-remaining-requests"] == "1"
        assert second["x-ratelimit-remaining-requests"] == "0"
        assert first["x-ratelimit-limit-tokens"] == "100000"
        assert int(first["x-ratelimit-remaining-tokens"]) < 100_000
        assert first["x-ratelimit-reset-requests"] == "30s"
        assert_error(third, 429, "RATE_LIMIT_EXCEEDED")
        assert third["x-ratelimit-remaining-requests"] == "0"
        assert 1 <= int(third["Retry-After"]) <= 60
        assert "x-should-retry" not in third

    def test_are_said_with_a_stream(self, live_hub: LiveHub) -> None:
        make_provider()
        _, key = make_key(**LIMITED)
        body = {"messages": HELLO, "stream": True}
        answer = requests.post(live_hub.url + COMPLETIONS, json=body, headers=bearer(key), timeout=20)
        assert answer.headers["x-ratelimit-remaining-requests"] == "1"
        assert answer.headers["x-ratelimit-limit-tokens"] == "100000"

    def test_a_key_without_limits_says_nothing_of_them(self) -> None:
        make_provider()
        _, key = make_key()
        assert not [name for name in ask(client_with(key)).headers if name.lower().startswith("x-ratelimit")]

    def test_a_call_that_can_never_pass_is_not_to_be_tried_again(self) -> None:
        make_provider()
        _, key = make_key(tokens_per_minute=10)
        answer = ask(client_with(key), max_tokens=500)
        assert_error(answer, 429, "RATE_LIMIT_EXCEEDED")
        assert answer["x-should-retry"] == "false"
        assert "Retry-After" not in answer


class TestBudgets:
    def test_a_spent_one_is_a_402_that_is_not_to_be_tried_again(self) -> None:
        provider = make_provider()
        price(provider)
        row, key = make_key()
        Budget.objects.create(project=row.project, api_key=row, amount=Decimal("0.000001"), period="day")
        answer = ask(client_with(key), max_tokens=500)
        body = assert_error(answer, 402, "BUDGET_EXCEEDED")
        assert answer["x-should-retry"] == "false"
        assert {"limit", "spent", "held"} <= body["details"].keys()


def price(provider: Any) -> None:
    from providers.models import ModelPrice

    ModelPrice.objects.create(model=provider.models.get(), prompt=Decimal(1), completion=Decimal(2))


class TestRevoking:
    def test_ends_an_open_stream_within_seconds_and_settles_its_row(self, live_hub: LiveHub) -> None:
        with FakeUpstream() as upstream:
            upstream.hangs("idle")
            make_provider(upstream_url=upstream.url)
            row, key = make_key()
            body = {"messages": HELLO, "stream": True}
            with requests.post(
                live_hub.url + COMPLETIONS, json=body, headers=bearer(key), stream=True, timeout=20
            ) as answer:
                events = events_of(answer)
                assert next(events).name == "started"
                keys.revoke(row)
                began = time.monotonic()
                last = list(events)[-1]
                assert time.monotonic() - began < 5
        assert (last.name, last.data["status_code"]) == ("error", 401)
        assert "revoked" in last.data["message"]
        assert Completion.objects.get().state == State.CANCELLED
        refused = requests.get(live_hub.url + "/api/models/", headers=bearer(key), timeout=20)
        assert refused.status_code == 401

    def test_ends_a_call_that_waits_for_its_whole_answer(self, live_hub: LiveHub) -> None:
        with FakeUpstream() as upstream, ThreadPoolExecutor(1) as thread:
            upstream.hangs("headers")
            make_provider(upstream_url=upstream.url)
            row, key = make_key()
            url, body = live_hub.url + COMPLETIONS, {"messages": HELLO}
            waiting = thread.submit(requests.post, url, json=body, headers=bearer(key), timeout=20)
            asked = upstream.wait_for()
            keys.revoke(row)
            answer = waiting.result(5)
            assert asked.wait_gone()
        assert_error(answer, 401, "AUTHENTICATION_FAILED")
        assert Completion.objects.get().state == State.CANCELLED


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BudgetExceededError("spent"), {"x-should-retry": "false"}),
        (ModelNotPricedError("no price"), {"x-should-retry": "false"}),
        (PermissionDeniedError("no"), {"x-should-retry": "false"}),
        (UnavailableError("away"), {"Retry-After": "5"}),
        (UnavailableError("away", retry_after=0.2), {"Retry-After": "1"}),
        (RateLimitError("slow down", retry_after=900), {"Retry-After": "60"}),
        (RateLimitError("slow down"), {}),
    ],
)
def test_an_error_says_whether_and_when_to_try_again(error: Any, expected: dict[str, str]) -> None:
    assert error_headers(error) == expected


async def test_a_passing_refusal_has_the_standing_and_when_to_come_back() -> None:
    limiter, limits = MemoryLimiter(), Limits(requests_per_minute=1)
    grant = await limiter.acquire("key", limits, 0)
    with pytest.raises(LimitExceeded) as refused:
        await limiter.acquire("key", limits, 0)
    headers = error_headers(refused.value)
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["Retry-After"] == "60"
    await limiter.release(grant, None)
