"""The official Node.js client, unmodified: the scripts of node/ use the hub and print what they got."""

import json
from decimal import Decimal
from typing import Any

import pytest

from completions.models import ApiKey, Budget, Completion, Project, State
from tests.clients.conftest import Node
from tests.clients.wire import MODEL, VECTORS, FrontDoor, Upstream, single, tool_answer
from tests.completions.calls import set_price
from tests.factories import make_provider
from tests.waiting import eventually

pytestmark = pytest.mark.node


def test_a_chat_is_answered(node: Node, door: FrontDoor) -> None:
    said = node("openai_chat")

    assert (said["model"], said["content"], said["finish_reason"]) == (MODEL, "Hello!", "stop")
    assert said["usage"]["total_tokens"] == 12
    assert said["request_id"] == said["headers"]["x-request-id"]
    assert said["headers"]["x-llmhub-provider"] == "upstream"
    assert door.statuses == [200]


def test_a_stream_is_iterated_with_its_usage_at_the_end(node: Node, upstream: Upstream) -> None:
    upstream.streams(("Hel", "lo", "! 🦉"))

    said = node("openai_stream")

    assert said["text"] == said["helper"] == "Hello! 🦉"
    *before, last = said["usages"]
    assert set(before) == {None}
    assert (last["prompt_tokens"], last["completion_tokens"]) == (9, 3)
    assert said["last_choices"] == []


def test_a_tool_makes_the_round_trip(node: Node, upstream: Upstream) -> None:
    upstream.answers(**tool_answer()).answers("It rains in Oslo.")

    said = node("openai_tools")

    assert said == {"content": "It rains in Oslo.", "asked": ["Oslo"]}
    told = upstream.requests[1].body["messages"][-1]
    assert told == {"role": "tool", "tool_call_id": "call_1", "content": "rain"}


def test_structured_output_is_parsed(node: Node, upstream: Upstream) -> None:
    upstream.answers('{"name": "Ada", "age": 36}')

    assert node("openai_structured") == {"name": "Ada", "age": 36}
    assert upstream.requests[0].body["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize("packs", [True, False], ids=["base64", "numbers"])
def test_embeddings_have_the_right_numbers(packs: bool, node: Node, upstream: Upstream) -> None:
    upstream.packs = packs

    said = node("openai_embeddings")

    assert upstream.requests[0].body["encoding_format"] == "base64"
    assert said["packed"] == [single(vector) if packs else list(vector) for vector in VECTORS]
    assert said["plain"] == list(VECTORS[0])
    assert said["usage"]["prompt_tokens"] == 4


def test_models_are_listed_and_retrieved(node: Node, upstream: Upstream) -> None:
    make_provider(upstream_url=upstream.url, slug="other", models=("acme/chat-1",))

    said = node("openai_models")

    assert sorted(said["ids"]) == ["acme/chat-1", MODEL]
    assert said["retrieved"] == "acme/chat-1"
    assert said["older"] == "Hello!"


# --- errors


def raised(node: Node, options: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """What a call of these fields raised, by a client of these options."""
    said: dict[str, Any] = node("openai_error", options=options or {}, fields=fields)
    return said


def test_errors_have_their_classes(node: Node, door: FrontDoor) -> None:
    ApiKey.objects.update(tokens_per_minute=100)

    key = raised(node, {"apiKey": "sk-llmhub-wrong"})
    model = raised(node, model="unknown")
    limit = raised(node, max_tokens=1000)

    assert (key["raised"], key["status"], key["code"]) == ("AuthenticationError", 401, "invalid_api_key")
    assert key["request_id"]
    assert (model["raised"], model["code"], model["param"]) == ("NotFoundError", "model_not_found", "model")
    assert (limit["raised"], limit["code"]) == ("RateLimitError", "rate_limit_exceeded")
    assert door.statuses == [401, 404, 429]


def test_a_bad_key_is_told_however_long_the_prompt(node: Node) -> None:
    said = node("openai_long", options={"apiKey": "sk-llmhub-wrong"})

    assert [message[:27] for message in said] == ["401 Incorrect API key provi"] * 5


def test_a_body_that_is_too_large_is_told(node: Node, settings: Any) -> None:
    settings.LLMHUB_MAX_BODY_BYTES = 100_000

    said = node("openai_long", options={})

    assert said == ["413 The request body is larger than 100000 bytes."] * 5


@pytest.mark.usefixtures("busy")
def test_the_client_waits_as_told_and_then_succeeds(node: Node, door: FrontDoor) -> None:
    assert raised(node) == {"raised": None, "content": "At last!"}

    assert door.statuses == [200, 429, 200]
    assert door.arrivals[2].at - door.arrivals[1].at >= 1.0


def test_a_spent_budget_is_told_in_exactly_one_call(node: Node, door: FrontDoor, upstream: Upstream) -> None:
    set_price(MODEL, "1000", "2000")
    Budget.objects.create(project=Project.objects.get(), amount=Decimal("0.000001"), period="month")

    said = raised(node, max_tokens=10)

    assert (said["raised"], said["status"], said["code"]) == ("APIError", 402, "budget_exceeded")
    assert said["type"] == "insufficient_quota"
    assert door.statuses == [402]
    assert upstream.requests == []


def test_an_upstream_that_fails_twice_is_not_asked_by_the_client_again(
    node: Node, door: FrontDoor, upstream: Upstream
) -> None:
    upstream.refuses(500)

    said = raised(node)

    assert (said["raised"], said["code"]) == ("InternalServerError", "server_is_overloaded")
    assert door.statuses == [503]
    assert len(upstream.requests) == 2


def test_a_stream_that_breaks_raises_while_it_is_read(node: Node, upstream: Upstream) -> None:
    upstream.cuts(after=2)

    said = raised(node, stream=True)

    assert said["seen"] == ["piece0 ", "piece1 "]
    assert (said["raised"], said["code"]) == ("APIError", "upstream_truncated")


def test_leaving_a_stream_ends_the_upstream_call(node: Node, upstream: Upstream) -> None:
    upstream.hangs("idle")

    with node.begin("openai_cancel") as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline()) == {"aborted": True}
        assert upstream.wait_for().wait_gone(1.0)
        assert running.poll() is None
        running.communicate()

    assert eventually(lambda: Completion.objects.get().state == State.CLIENT_GONE)
