"""The OpenAI wire: what is sent, what comes back, and leaving in between."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from completions.streams import Tape
from providers.drivers import connections
from providers.drivers.openai import OpenAIDriver
from providers.errors import (
    UpstreamError,
    UpstreamTruncated,
)
from providers.types import (
    Operation,
    Timeouts,
    Usage,
)
from tests.fakes import (
    End,
    FakeUpstream,
    chunk,
    chunked,
    completion,
    sse,
    stream_head,
)
from tests.providers.drivers.calls import BODY, KEY, bring, complete, stream, target, text

# --- requests


async def test_a_request_names_the_upstreams_model_and_carries_the_key(upstream: FakeUpstream) -> None:
    await complete(upstream, headers={"OpenAI-Project": "p1"})
    sent = upstream.requests[0]
    assert sent.body == {**BODY, "model": "upstream-model"}
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["openai-project"] == "p1"
    assert sent.headers["accept-encoding"] == "identity"


async def test_the_callers_parameters_win_over_the_providers_defaults(upstream: FakeUpstream) -> None:
    defaults = {"temperature": 0.7, "top_p": 0.5}
    await complete(upstream, {**BODY, "temperature": 0}, default_config=defaults)
    assert upstream.requests[0].body["temperature"] == 0
    assert upstream.requests[0].body["top_p"] == 0.5


@pytest.mark.parametrize("given", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("understood", ["max_tokens", "max_completion_tokens"])
async def test_the_output_bound_goes_by_the_name_the_vendor_understands(
    upstream: FakeUpstream, given: str, understood: str
) -> None:
    await complete(upstream, {**BODY, given: 7}, quirks={"output_bound": understood})
    sent = upstream.requests[0].body
    assert {name: sent[name] for name in sent if name.startswith("max")} == {understood: 7}


async def test_a_stream_asks_for_usage_where_the_vendor_understands_it(upstream: FakeUpstream) -> None:
    await stream(upstream)
    await stream(upstream, quirks={"stream_usage_option": False})
    assert upstream.requests[0].body["stream_options"] == {"include_usage": True}
    assert "stream_options" not in upstream.requests[1].body
    assert upstream.requests[1].body["stream"] is True


@pytest.mark.parametrize("name", ["api-key", "x-api-key"])
async def test_the_key_goes_in_the_header_the_vendor_reads(upstream: FakeUpstream, name: str) -> None:
    await complete(upstream, quirks={"auth_header": name})
    assert upstream.requests[0].headers[name] == KEY
    assert "authorization" not in upstream.requests[0].headers


# --- good answers


async def test_a_whole_answer(upstream: FakeUpstream) -> None:
    upstream.answers("Hello!")
    answer = await complete(upstream)
    assert (answer.content, answer.finish_reason) == ("Hello!", "stop")
    assert answer.usage == Usage(prompt=9, completion=3)
    assert answer.body["id"] == "chatcmpl-fake"


async def test_a_streamed_answer(upstream: FakeUpstream) -> None:
    upstream.streams(["Hel", "lo"])
    chunks, error = await stream(upstream)
    assert error is None
    assert text(chunks) == "Hello"
    assert [one.finish_reason for one in chunks if one.finish_reason] == ["stop"]
    assert chunks[-1].usage == Usage(prompt=9, completion=3)


async def test_connections_are_used_again(upstream: FakeUpstream) -> None:
    ports = set()
    for _ in range(3):
        await complete(upstream)
        await stream(upstream)
        await asyncio.sleep(0)
        ports.add(len(connections.pool()))
    assert ports == {1}


async def test_reasoning_and_tool_calls_are_told_apart_from_content(upstream: FakeUpstream) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
    ]
    upstream.events(
        chunk({"reasoning_content": "a"}),
        chunk({"reasoning": "b"}),
        chunk({"content": parts}),
        chunk({"tool_calls": [call]}),
        chunk({}, "tool_calls"),
        "[DONE]",
    )
    chunks, error = await stream(upstream)
    assert error is None
    assert "".join(one.reasoning for one in chunks) == "abhm"
    assert text(chunks) == "yes"
    assert [one.tool_calls for one in chunks if one.tool_calls] == [(call,)]


async def test_bytes_may_be_split_anywhere_and_surrounded_by_comments(upstream: FakeUpstream) -> None:
    wire_bytes = "\ufeff: hi\r\ndata: ".encode() + json.dumps(chunk({"content": "🦊é"})).encode()
    wire_bytes += b"\r\n\r\n: x\n\n" + sse(chunk({}, "stop"), "[DONE]").rstrip()
    parts = [wire_bytes[i : i + 7] for i in range(0, len(wire_bytes), 7)]
    upstream.sends([stream_head(), *(chunked(part) for part in parts), chunked(b"")])
    chunks, error = await stream(upstream)
    assert error is None
    assert text(chunks) == "🦊é"


async def test_invalid_utf8_and_lone_surrogates_become_replacement_characters(upstream: FakeUpstream) -> None:
    upstream.events(
        b'data: {"choices": [{"index": 0, "delta": {"content": "a\xff"}}]}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {"content": "\\ud83d b"}}]}\n\n',
        chunk({}, "stop"),
    )
    chunks, error = await stream(upstream)
    assert error is None
    assert text(chunks) == "a\ufffd\ufffd b"


async def test_a_whole_answer_to_a_stream_request_is_one_chunk(upstream: FakeUpstream) -> None:
    upstream.answers("Hello!")
    chunks, error = await stream(upstream)
    assert error is None
    assert [(one.content, one.finish_reason, one.usage) for one in chunks] == [
        ("Hello!", "stop", Usage(prompt=9, completion=3))
    ]


@pytest.mark.parametrize("last", [chunk({}, "stop"), "[DONE]"])
async def test_either_a_finish_reason_or_done_ends_a_stream(upstream: FakeUpstream, last: Any) -> None:
    upstream.events(chunk({"content": "a"}), last)
    chunks, error = await stream(upstream)
    assert error is None
    assert text(chunks) == "a"


@pytest.mark.parametrize("reset", [False, True])
async def test_a_break_after_the_finish_reason_loses_nothing(upstream: FakeUpstream, reset: bool) -> None:
    upstream.cuts(after=2, reset=reset, finish_reason="stop")
    chunks, error = await stream(upstream)
    assert error is None
    assert text(chunks) == "piece0 piece1 "


async def test_a_slow_reader_gets_what_came_before_a_break(upstream: FakeUpstream) -> None:
    upstream.events(chunk({"content": "a"}), chunk({"content": "b"}), delay=0.05, end=End.RESET)
    tape = Tape()
    reader = tape.reader()
    with pytest.raises(UpstreamTruncated):
        await bring(upstream, tape)
    assert text(await reader.read()) == "ab"


# --- leaving


async def test_cancelling_a_stream_closes_the_connection_at_once(upstream: FakeUpstream) -> None:
    upstream.hangs("idle")
    tape = Tape()
    reader = tape.reader()
    task = asyncio.ensure_future(bring(upstream, tape))
    assert (await reader.read())[0].content == "Hel"
    task.cancel()
    assert await asyncio.to_thread(upstream.requests[0].wait_gone, 1)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("where", ["headers", "first_token"])
async def test_cancelling_a_waiting_call_closes_the_connection(upstream: FakeUpstream, where: str) -> None:
    upstream.hangs(where)
    task = asyncio.ensure_future(stream(upstream, timeouts=Timeouts()))
    await asyncio.to_thread(upstream.wait_for)
    task.cancel()
    assert await asyncio.to_thread(upstream.requests[0].wait_gone, 1)
    with pytest.raises(asyncio.CancelledError):
        await task


# --- headers


@pytest.mark.parametrize("status", [200, 429, 500])
async def test_the_headers_of_every_answer_are_heard(upstream: FakeUpstream, status: int) -> None:
    heard: list[tuple[str, Mapping[str, str]]] = []
    upstream.refuses(status, completion(), headers={"X-RateLimit-Limit-Requests": "60"})
    driver = OpenAIDriver(lambda provider, headers: heard.append((provider, headers)))
    try:
        deadline = asyncio.get_running_loop().time() + 5
        await driver.complete(target(upstream), Operation.CHAT, dict(BODY), deadline=deadline)
    except UpstreamError:
        pass  # the headers count all the same
    assert heard[0][0] == "acme"
    assert heard[0][1]["x-ratelimit-limit-requests"] == "60"
