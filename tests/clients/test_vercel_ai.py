"""Vercel's AI SDK, unmodified, by its provider for OpenAI's wire: scripts of node/ print what they got."""

from decimal import Decimal

import pytest

from completions.models import ApiKey, Budget, Project
from tests.clients.conftest import Node
from tests.clients.wire import MODEL, VECTORS, FrontDoor, Upstream, tool_answer, tool_pieces
from tests.completions.calls import set_price
from tests.fakes import chunk

pytestmark = pytest.mark.node


def test_text_is_generated(node: Node, upstream: Upstream) -> None:
    said = node("ai_text")

    assert (said["text"], said["finish_reason"], said["model"]) == ("Hello!", "stop", MODEL)
    assert (said["usage"]["inputTokens"], said["usage"]["outputTokens"]) == (9, 3)
    assert said["headers"]["x-llmhub-provider"] == "upstream"
    assert [message["role"] for message in upstream.requests[0].body["messages"]] == ["system", "user"]


def test_text_is_streamed_with_its_usage(node: Node, upstream: Upstream) -> None:
    upstream.streams(("Hel", "lo", "! 🦉"))

    said = node("ai_stream")

    assert (said["text"], said["finish_reason"], said["raised"]) == ("Hello! 🦉", "stop", [])
    assert (said["usage"]["inputTokens"], said["usage"]["outputTokens"]) == (9, 3)


def test_structured_output_is_parsed(node: Node, upstream: Upstream) -> None:
    upstream.answers('{"name": "Ada", "age": 36}')

    assert node("ai_structured") == {"name": "Ada", "age": 36}
    assert upstream.requests[0].body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_tool_makes_the_round_trip(stream: bool, node: Node, upstream: Upstream) -> None:
    if stream:
        pieces = [chunk(delta) for delta in tool_pieces()]
        upstream.events(*pieces, chunk({}, "tool_calls"), "[DONE]").streams(("It rains ", "in Oslo."))
    else:
        upstream.answers(**tool_answer()).answers("It rains in Oslo.")

    said = node("ai_tools", stream=stream)

    assert said == {"text": "It rains in Oslo.", "steps": 2, "asked": ["Oslo"]}
    *_, asked, told = upstream.requests[1].body["messages"]
    assert asked["tool_calls"][0]["id"] == told["tool_call_id"] == "call_1"
    assert told["content"] == "rain"


def test_embeddings_have_the_right_numbers(node: Node) -> None:
    said = node("ai_embed")

    assert said["one"] == list(VECTORS[0])
    assert said["many"] == [list(vector) for vector in VECTORS]
    assert said["usage"]["tokens"] == 4


# --- errors


def test_errors_are_told_with_their_codes(node: Node, door: FrontDoor) -> None:
    ApiKey.objects.update(tokens_per_minute=100)

    key = Node(node.base_url, "sk-llmhub-wrong")("ai_error")
    model = node("ai_error", model="unknown")
    limit = node("ai_error", maxOutputTokens=1000, maxRetries=0)

    assert (key["raised"], key["status"]) == ("AI_APICallError", 401)
    assert (model["raised"], model["status"], model["retryable"]) == ("AI_APICallError", 404, False)
    assert (model["error"]["code"], model["error"]["param"]) == ("model_not_found", "model")
    assert model["message"] == model["error"]["message"]
    assert (limit["status"], limit["retryable"]) == (429, True)
    assert limit["error"]["code"] == "rate_limit_exceeded"
    assert door.statuses == [401, 404, 429]


def test_a_spent_budget_is_told_in_exactly_one_call(node: Node, door: FrontDoor, upstream: Upstream) -> None:
    set_price(MODEL, "1000", "2000")
    Budget.objects.create(project=Project.objects.get(), amount=Decimal("0.000001"), period="month")

    said = node("ai_error", maxOutputTokens=10)

    assert (said["raised"], said["status"], said["retryable"]) == ("AI_APICallError", 402, False)
    assert said["error"]["code"] == "budget_exceeded"
    assert door.statuses == [402]
    assert upstream.requests == []


@pytest.mark.usefixtures("busy")
def test_the_client_waits_and_then_succeeds(node: Node, door: FrontDoor) -> None:
    assert node("ai_error") == {"raised": None, "text": "At last!"}

    assert door.statuses == [200, 429, 200]
    waited = door.arrivals[2].at - door.arrivals[1].at
    assert 1.0 <= waited < 1.9  # retry-after: 1, where the client of itself waits two seconds


def test_a_stream_that_breaks_says_so(node: Node, upstream: Upstream) -> None:
    upstream.cuts(after=2)

    said = node("ai_stream")

    assert said["text"] == "piece0 piece1 "
    assert len(said["raised"]) == 1
    assert "upstream" in said["raised"][0]
    assert said["finish_reason"] == "error"
