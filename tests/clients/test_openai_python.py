"""The official Python client, unmodified: whole answers, tools, structured output, embeddings, models."""

import json
from typing import Any

import pytest
from openai import OpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletionFunctionToolParam
from pydantic import BaseModel

from completions.models import Completion, State
from tests.clients.wire import ASK, MODEL, VECTORS, FrontDoor, Upstream, single, tool_answer
from tests.completions.calls import set_price
from tests.factories import make_key, make_project, make_provider

TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Person(BaseModel):
    name: str
    age: int


class Weather(BaseModel):
    """The weather of a city."""

    city: str


# --- chat


def test_a_chat_is_answered(client: OpenAI, upstream: Upstream, door: FrontDoor) -> None:
    upstream.answers("Good day!")

    answer = client.chat.completions.create(**ASK)

    assert answer.object == "chat.completion"
    assert answer.id == "chatcmpl-fake"
    assert answer.model == MODEL
    assert answer.choices[0].message.content == "Good day!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 3)
    assert [(arrival.method, arrival.path) for arrival in door.arrivals] == [("POST", "/v1/chat/completions")]
    row = Completion.objects.get()
    assert (row.state, row.surface, row.request_id) == (State.OK, "v1", answer._request_id)
    assert (row.prompt_tokens, row.completion_tokens) == (9, 3)


def test_every_parameter_of_the_client_reaches_the_upstream(client: OpenAI, upstream: Upstream) -> None:
    given: dict[str, Any] = {
        "temperature": 0.2, "top_p": 0.9, "n": 2, "stop": ["END"], "seed": 7, "logprobs": True,
        "presence_penalty": 0.1, "frequency_penalty": -0.1, "logit_bias": {"50256": -100}, "user": "ada",
        "reasoning_effort": "low", "metadata": {"job": "1"}, "store": False, "verbosity": "low",
        "top_logprobs": 2, "parallel_tool_calls": False, "tool_choice": "auto", "tools": [TOOL],
        "service_tier": "auto", "response_format": {"type": "json_object"},
        "prediction": {"type": "content", "content": "x"},
    }  # fmt: skip

    client.chat.completions.create(**ASK, **given, max_completion_tokens=50, extra_body={"top_k": 40})

    sent = upstream.requests[0].body
    assert {name: sent[name] for name in given} == given
    assert sent["top_k"] == 40
    assert sent["messages"] == ASK["messages"]
    assert sent["max_tokens"] == 50  # as this kind of upstream calls it


def test_the_callers_headers_stay_at_the_hub(base_url: str, key: str, upstream: Upstream) -> None:
    with OpenAI(
        base_url=base_url,
        api_key=key,
        organization="org-callers",
        project="proj-callers",
        default_headers={"X-Callers": "own"},
        default_query={"callers": "own"},
    ) as client:
        client.chat.completions.create(**ASK)

    sent = upstream.requests[0]
    assert sent.path == "/v1/chat/completions"
    assert "callers" not in str(sent.headers)
    assert not any(name.startswith(("x-stainless", "openai-", "authorization")) for name in sent.headers)


def test_what_only_this_upstream_answers_reaches_the_caller(client: OpenAI, upstream: Upstream) -> None:
    message = {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}
    choices = [
        {"index": number, "message": message, "finish_reason": "stop", "logprobs": None} for number in (0, 1)
    ]
    upstream.answers(choices=choices, system_fingerprint="fp_1", citations=["a"])

    answer = client.chat.completions.create(**ASK, n=2)

    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[1].message.model_extra == {"reasoning_content": "2 + 2"}
    assert answer.system_fingerprint == "fp_1"
    assert answer.model_extra == {"citations": ["a"]}


def test_content_parts_pass_as_they_are(client: OpenAI, upstream: Upstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}}
    parts = [{"type": "text", "text": "What is it? 🦉"}, image]

    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])  # type: ignore[misc,list-item]

    assert upstream.requests[0].body["messages"] == [{"role": "user", "content": parts}]


def test_usage_in_full_is_told(client: OpenAI, upstream: Upstream) -> None:
    usage = {
        "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 40, "audio_tokens": 0},
    }  # fmt: skip
    upstream.answers(usage=usage)

    answer = client.chat.completions.create(**ASK)

    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_none=True) == usage


def test_the_raw_answer_tells_who_answered_and_at_what_cost(client: OpenAI) -> None:
    set_price(MODEL, "1000", "2000")

    raw = client.chat.completions.with_raw_response.create(**ASK)

    headers = raw.headers
    assert raw.http_response.status_code == 200
    assert headers["x-request-id"] == headers["request-id"] == raw.request_id
    assert headers["x-llmhub-model"] == MODEL
    assert headers["x-llmhub-provider"] == "upstream"
    assert headers["x-llmhub-cache"] == "BYPASS"
    assert headers["x-llmhub-attempts"] == "1"
    assert headers["x-llmhub-cost-usd"] == "0.015"
    assert raw.parse().choices[0].message.content == "Hello!"
    assert raw.parse()._request_id == headers["x-request-id"]


def test_a_request_id_of_the_callers_own_is_kept(client: OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, extra_headers={"X-Request-Id": "job-17.a_b"})

    assert answer._request_id == "job-17.a_b"
    assert Completion.objects.get().request_id == "job-17.a_b"


def test_where_the_limits_stand_is_in_the_headers(client: OpenAI) -> None:
    _, key = make_key(make_project("limited"), requests_per_minute=60, tokens_per_minute=6000)

    raw = client.with_options(api_key=key).chat.completions.with_raw_response.create(**ASK, max_tokens=100)

    assert raw.headers["x-ratelimit-limit-requests"] == "60"
    assert raw.headers["x-ratelimit-remaining-requests"] == "59"
    assert raw.headers["x-ratelimit-reset-requests"] == "1s"
    assert raw.headers["x-ratelimit-limit-tokens"] == "6000"
    assert 5800 <= int(raw.headers["x-ratelimit-remaining-tokens"]) <= 5900
    assert raw.headers["x-ratelimit-reset-tokens"].endswith("s")


def test_an_answer_can_be_read_as_it_comes_in(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(**ASK) as response:
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-request-id"]
        lines = "".join(response.iter_lines())

    assert json.loads(lines)["choices"][0]["message"]["content"] == "Hello!"


# --- structured output and tools


def test_structured_output_is_parsed(client: OpenAI, upstream: Upstream) -> None:
    upstream.answers('{"name": "Ada", "age": 36}')

    answer = client.chat.completions.parse(**ASK, response_format=Person)

    assert answer.choices[0].message.parsed == Person(name="Ada", age=36)
    asked = upstream.requests[0].body["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["name"] == "Person"
    assert asked["json_schema"]["strict"] is True
    assert asked["json_schema"]["schema"]["required"] == ["name", "age"]


def test_a_schema_passes_unchanged(client: OpenAI, upstream: Upstream) -> None:
    schema: Any = {
        "type": "object",
        "properties": {"größe": {"type": "number"}},
        "additionalProperties": False,
    }
    asked: Any = {"type": "json_schema", "json_schema": {"name": "size", "schema": schema, "strict": True}}
    upstream.answers('{"größe": 1.5}')

    answer = client.chat.completions.create(**ASK, response_format=asked)

    assert upstream.requests[0].body["response_format"] == asked
    assert json.loads(answer.choices[0].message.content or "") == {"größe": 1.5}


def test_a_refusal_is_told_as_one(client: OpenAI, upstream: Upstream) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot do that."}
    upstream.answers(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])

    answer = client.chat.completions.parse(**ASK, response_format=Person)

    assert answer.choices[0].message.parsed is None
    assert answer.choices[0].message.refusal == "I cannot do that."


def test_a_tool_makes_the_round_trip(client: OpenAI, upstream: Upstream) -> None:
    upstream.answers(**tool_answer()).answers("It rains in Oslo.")
    messages: list[Any] = list(ASK["messages"])

    first = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL]).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.tool_calls is not None
    call = first.message.tool_calls[0]
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])

    assert second.choices[0].message.content == "It rains in Oslo."
    asked, told = upstream.requests[1].body["messages"][1:]
    assert asked["tool_calls"] == [call.model_dump()]
    assert told == {"role": "tool", "tool_call_id": "call_1", "content": "rain"}


def test_the_arguments_of_a_tool_are_parsed(client: OpenAI, upstream: Upstream) -> None:
    upstream.answers(**tool_answer())

    answer = client.chat.completions.parse(**ASK, tools=[pydantic_function_tool(Weather, name="weather")])

    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == Weather(city="Oslo")


# --- embeddings


def test_the_client_asks_for_base64_and_gets_its_numbers(client: OpenAI, upstream: Upstream) -> None:
    answer = client.embeddings.create(model=MODEL, input=["one", "two"])

    assert upstream.requests[0].body["encoding_format"] == "base64"
    assert [item.embedding for item in answer.data] == [single(vector) for vector in VECTORS]
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.model == MODEL
    assert answer.usage.prompt_tokens == 4
    assert Completion.objects.get().prompt_tokens == 4


def test_numbers_asked_for_as_numbers_come_exactly(client: OpenAI, upstream: Upstream) -> None:
    answer = client.embeddings.create(model=MODEL, input="one", encoding_format="float", dimensions=3)

    assert answer.data[0].embedding == list(VECTORS[0])
    assert upstream.requests[0].body["dimensions"] == 3


def test_an_upstream_that_knows_no_base64_is_understood(client: OpenAI, upstream: Upstream) -> None:
    upstream.packs = False

    answer = client.embeddings.create(model=MODEL, input="one")

    assert answer.data[0].embedding == pytest.approx(VECTORS[0])


def test_every_form_of_input_is_taken(client: OpenAI, upstream: Upstream) -> None:
    forms: tuple[Any, ...] = ("text", ["another"], [1, 2, 3], [[1, 2], [3]])

    vectors = [client.embeddings.create(model=MODEL, input=form).data[0].embedding for form in forms]

    assert [request.body["input"] for request in upstream.requests] == list(forms)
    assert vectors == [single(VECTORS[0])] * 4


# --- models, and the older completions


def test_models_are_listed(client: OpenAI) -> None:
    models = list(client.models.list())

    assert [(model.id, model.owned_by, model.object) for model in models] == [(MODEL, "upstream", "model")]
    assert models[0].created > 0


def test_a_key_sees_only_its_models(client: OpenAI, upstream: Upstream) -> None:
    make_provider(upstream_url=upstream.url, slug="other", models=("hidden", "seen"))
    _, key = make_key(make_project("narrow"), allowed_models=["seen"])

    assert [model.id for model in client.with_options(api_key=key).models.list()] == ["seen"]


def test_a_model_is_retrieved_and_called_by_any_of_its_names(client: OpenAI, upstream: Upstream) -> None:
    names = ("acme/chat-1:free", "größe")
    make_provider(upstream_url=upstream.url, slug="other", models=names)

    for name in (*names, "other/acme/chat-1:free", f"upstream/{MODEL}"):
        assert client.models.retrieve(name).id == name
        assert client.chat.completions.create(**ASK | {"model": name}).model == name


def test_the_older_completions_are_answered(client: OpenAI, upstream: Upstream) -> None:
    answer = client.completions.create(model=MODEL, prompt="Say hello", max_tokens=5, echo=False)

    assert (answer.object, answer.model) == ("text_completion", MODEL)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Hello!", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    sent = upstream.requests[0]
    assert (sent.path, sent.body["prompt"], sent.body["max_tokens"]) == ("/v1/completions", "Say hello", 5)


def test_the_older_completions_are_streamed(client: OpenAI) -> None:
    with client.completions.create(
        model=MODEL, prompt="Say hello", stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "Hello!"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12
    assert {chunk.model for chunk in chunks} == {MODEL}
