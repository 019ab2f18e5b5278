"""The official Python client, unmodified: streams, and what becomes of them when either end goes away."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from openai import APIError, APITimeoutError, OpenAI, RateLimitError, pydantic_function_tool
from openai.types.chat import ChatCompletionChunk

from completions.models import ApiKey, Completion, State
from providers.models import LLMProvider
from tests.clients.test_openai_python import Person, Weather
from tests.clients.wire import ASK, MODEL, FrontDoor, Upstream, tool_pieces
from tests.completions.calls import set_price
from tests.fakes import End, chunk
from tests.waiting import eventually

USAGE_ASKED: Any = {"stream": True, "stream_options": {"include_usage": True}}


def text_of(chunks: Iterator[ChatCompletionChunk] | list[ChatCompletionChunk]) -> str:
    return "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)


def test_a_stream_is_iterated(client: OpenAI, upstream: Upstream) -> None:
    upstream.streams(("Hel", "lo", "! 🦉"))

    chunks = list(client.chat.completions.create(**ASK, stream=True))

    assert text_of(chunks) == "Hello! 🦉"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert not any("usage" in one.model_fields_set for one in chunks)
    assert {(one.id, one.model, one.object) for one in chunks} == {
        ("chatcmpl-fake", MODEL, "chat.completion.chunk")
    }


def test_usage_that_was_asked_for_comes_in_a_last_chunk(client: OpenAI, upstream: Upstream) -> None:
    set_price(MODEL, "1000", "2000")
    upstream.streams()

    *chunks, last = client.chat.completions.create(**ASK, **USAGE_ASKED)

    assert text_of(chunks) == "Hello!"
    assert {("usage" in one.model_fields_set, one.usage) for one in chunks} == {(True, None)}
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (9, 3, 12)
    assert last.usage.model_extra == {"cost_usd": "0.015"}


def test_usage_is_told_also_where_the_upstream_is_silent_about_it(client: OpenAI, upstream: Upstream) -> None:
    upstream.streams(usage=None)

    *_, last = client.chat.completions.create(**ASK, **USAGE_ASKED)

    row = Completion.objects.get()
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        row.prompt_tokens,
        row.completion_tokens,
    )
    assert last.usage.completion_tokens > 0


def test_each_piece_arrives_when_the_upstream_sends_it(client: OpenAI, upstream: Upstream) -> None:
    upstream.streams(("a", "b", "c", "d"), delay=0.06)

    times = [time.monotonic() for _ in client.chat.completions.create(**ASK, stream=True)]

    assert times[-1] - times[0] > 0.2


def test_comments_that_fill_a_silence_are_not_seen(
    client: OpenAI, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("completions.v1.answers.KEEPALIVE_SECONDS", 0.05)
    upstream.streams(("Hello",), delay=0.08)

    with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as response:
        raw = "\n".join(response.iter_lines())
    chunks = list(client.chat.completions.create(**ASK, stream=True))

    assert ": keepalive" in raw
    assert raw.rstrip().endswith("data: [DONE]")
    assert text_of(chunks) == "Hello"


def test_the_head_of_a_stream_tells_who_answers(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**ASK, stream=True)

    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.headers["cache-control"] == "no-cache"
    assert raw.headers["x-request-id"] == raw.request_id
    assert raw.headers["x-llmhub-model"] == MODEL
    assert raw.headers["x-llmhub-provider"] == "upstream"
    assert raw.headers["x-llmhub-attempts"] == "1"
    assert "x-llmhub-cost-usd" not in raw.headers
    assert text_of(list(raw.parse())) == "Hello!"


def test_the_helper_puts_a_stream_together(client: OpenAI, upstream: Upstream) -> None:
    upstream.streams(('{"name": "Ada"', ', "age": 36}'))

    with client.chat.completions.stream(
        **ASK, response_format=Person, stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type for event in stream]
        whole = stream.get_final_completion()

    assert whole.choices[0].message.parsed == Person(name="Ada", age=36)
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 12
    assert {"chunk", "content.delta", "content.done"} <= set(kinds)


def test_a_tool_call_in_pieces_is_put_together(client: OpenAI, upstream: Upstream) -> None:
    upstream.events(*(chunk(delta) for delta in tool_pieces()), chunk({}, "tool_calls"), "[DONE]")

    with client.chat.completions.stream(**ASK, tools=[pydantic_function_tool(Weather)]) as stream:
        whole = stream.get_final_completion()

    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    assert (calls[0].id, calls[0].function.name) == ("call_1", "weather")
    assert calls[0].function.arguments == '{"city": "Oslo"}'


def test_several_answers_are_streamed_beside_each_other(client: OpenAI, upstream: Upstream) -> None:
    def piece(index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish_reason}
        return chunk(None) | {"choices": [choice]}

    upstream.events(piece(0, "a"), piece(1, "x"), piece(1, "y", "stop"), piece(0, "b", "stop"), "[DONE]")

    chunks = list(client.chat.completions.create(**ASK, stream=True, n=2))

    texts = {0: "", 1: ""}
    for one in chunks:
        texts[one.choices[0].index] += one.choices[0].delta.content or ""
    assert texts == {0: "ab", 1: "xy"}


# --- streams that break


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_stream_that_breaks_raises_while_it_is_read(
    reset: bool, client: OpenAI, upstream: Upstream, door: FrontDoor
) -> None:
    upstream.cuts(after=2, reset=reset)
    seen: list[ChatCompletionChunk] = []

    with pytest.raises(APIError) as caught, client.chat.completions.create(**ASK, stream=True) as stream:
        seen.extend(stream)

    assert text_of(seen) == "piece0 piece1 "
    assert caught.value.type == "api_error"
    assert caught.value.code == "upstream_truncated"
    assert "upstream" in caught.value.message
    assert door.statuses == [200]
    assert Completion.objects.get().state == State.UPSTREAM_TRUNCATED


def test_an_error_inside_a_stream_raises(client: OpenAI, upstream: Upstream) -> None:
    error = {"error": {"message": "the server had an error", "type": "server_error", "code": None}}
    upstream.events(chunk({"content": "Hel"}), error, end=End.CLOSE)

    with pytest.raises(APIError, match="the server had an error"):
        list(client.chat.completions.create(**ASK, stream=True))


def test_an_upstream_that_falls_silent_raises(client: OpenAI, upstream: Upstream) -> None:
    LLMProvider.objects.update(idle_timeout_seconds=0.3)
    upstream.hangs("idle")

    with pytest.raises(APIError) as caught:
        list(client.chat.completions.create(**ASK, stream=True))

    assert caught.value.code == "upstream_timeout"
    assert upstream.wait_for().wait_gone(1.0)


# --- callers that leave


def test_closing_a_stream_ends_the_upstream_call(client: OpenAI, upstream: Upstream) -> None:
    upstream.hangs("idle")

    stream = client.chat.completions.create(**ASK, stream=True)
    next(stream)
    stream.close()

    assert upstream.wait_for().wait_gone(1.0)
    assert eventually(lambda: Completion.objects.get().state == State.CLIENT_GONE)


def test_leaving_the_block_of_a_stream_ends_the_upstream_call(client: OpenAI, upstream: Upstream) -> None:
    upstream.streams(["piece "] * 200, delay=0.05)

    with client.chat.completions.create(**ASK, stream=True) as stream:
        for one in stream:
            if one.choices[0].delta.content:
                break

    assert upstream.wait_for().wait_gone(1.0)
    assert eventually(lambda: Completion.objects.get().state == State.CLIENT_GONE)


def test_a_client_that_times_out_in_a_stream_ends_the_upstream_call(
    client: OpenAI, upstream: Upstream
) -> None:
    upstream.hangs("idle")

    with pytest.raises(APITimeoutError):
        list(client.chat.completions.create(**ASK, stream=True, timeout=0.5))

    assert upstream.wait_for().wait_gone(1.0)


def test_a_slot_is_soon_free_when_its_stream_is_closed(client: OpenAI, upstream: Upstream) -> None:
    ApiKey.objects.update(concurrent_calls=1)
    upstream.hangs("idle").answers("Next!")
    stream = client.chat.completions.create(**ASK, stream=True)
    next(stream)
    stream.close()

    def free() -> bool:
        try:
            client.with_options(max_retries=0).chat.completions.create(**ASK)
        except RateLimitError:
            return False
        return True

    assert eventually(free, 1.0)
