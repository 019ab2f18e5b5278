"""What a broken upstream sends, or fails to send: nonsense, cuts, silence."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from completions.streams import AHEAD_CHUNKS, Tape
from providers import egress
from providers.drivers import exchange, wire
from providers.errors import (
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from providers.types import (
    Secret,
    StreamChunk,
)
from tests.fakes import (
    End,
    FakeUpstream,
    chunk,
    chunked,
    completion,
    refused_url,
    response,
    sse,
    stream_head,
)
from tests.providers.drivers.calls import (
    FAST,
    KEY,
    Collected,
    bring,
    complete,
    complete_error,
    stream,
    text,
)
from tests.waiting import aeventually

# --- nonsense


@pytest.mark.parametrize(
    "event",
    [
        b"data: {nonsense\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": {"foo": 1}}\n\n',
        b'data: {"choices": [1]}\n\n',
        b'data: {"choices": [{"delta": 5}]}\n\n',
    ],
)
async def test_a_malformed_event_stops_the_stream(upstream: FakeUpstream, event: bytes) -> None:
    upstream.events(chunk({"content": "a"}), event, chunk({"content": "b"}), chunk({}, "stop"), "[DONE]")
    chunks, error = await stream(upstream)
    assert text(chunks) == "a"
    assert type(error) is UpstreamInvalid


@pytest.mark.parametrize(
    "body", ["nonsense", "[]", "{}", '{"choices": []}', '{"choices": [{}]}', "[" * 100_000]
)
async def test_a_whole_answer_of_the_wrong_shape_is_invalid(upstream: FakeUpstream, body: str) -> None:
    upstream.refuses(200, body)
    with pytest.raises(UpstreamInvalid):
        await complete(upstream)
    chunks, error = await stream(upstream)
    assert (chunks, type(error)) == ([], UpstreamInvalid)


async def test_a_stream_of_done_alone_is_no_answer(upstream: FakeUpstream) -> None:
    upstream.events("[DONE]")
    assert type((await stream(upstream))[1]) is UpstreamInvalid


async def test_an_encoded_body_is_refused(upstream: FakeUpstream) -> None:
    upstream.refuses(200, b"\x1f\x8b", headers={"content-encoding": "gzip"})
    with pytest.raises(UpstreamInvalid, match="encoded"):
        await complete(upstream)


async def test_a_line_without_end_is_stopped_at_the_cap(upstream: FakeUpstream) -> None:
    upstream.events(chunk({"content": "a"}), b"data: " + b"x" * (2 << 20))
    chunks, error = await stream(upstream)
    assert text(chunks) == "a"
    assert type(error) is UpstreamTooLarge


async def test_a_body_over_the_cap_is_stopped(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_BODY_BYTES", 1 << 20)
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", 1 << 20)
    upstream.answers("x" * (2 << 20))
    with pytest.raises(UpstreamTooLarge, match="more than 1 MiB"):
        await complete(upstream)
    upstream.sends([stream_head({"content-type": "application/json"}), *[chunked(b" " * 65536)] * 40])
    await complete_error(upstream, UpstreamTooLarge)


async def test_what_is_not_http_is_invalid(upstream: FakeUpstream) -> None:
    upstream.sends([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])
    await complete_error(upstream, UpstreamInvalid)


# --- cuts


async def test_a_connection_closed_before_the_answer_is_truncated(upstream: FakeUpstream) -> None:
    upstream.scripts(lambda _: [End.CLOSE])
    await complete_error(upstream, UpstreamTruncated)
    upstream.scripts(lambda _: [End.RESET])
    await complete_error(upstream, UpstreamTruncated)


async def test_a_body_shorter_than_its_content_length_is_truncated(upstream: FakeUpstream) -> None:
    upstream.sends([response(200, completion())[:-10]])
    await complete_error(upstream, UpstreamTruncated)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_stream_cut_before_its_end_is_truncated(upstream: FakeUpstream, reset: bool) -> None:
    upstream.cuts(after=2, reset=reset)
    chunks, error = await stream(upstream)
    assert text(chunks) == "piece0 piece1 "
    assert type(error) is UpstreamTruncated


async def test_a_stream_that_ends_well_but_unfinished_is_truncated(upstream: FakeUpstream) -> None:
    upstream.events(chunk({"content": "a"}))
    chunks, error = await stream(upstream)
    assert (text(chunks), type(error)) == ("a", UpstreamTruncated)


async def test_a_stream_cut_inside_an_event_is_truncated(upstream: FakeUpstream) -> None:
    upstream.events(chunk({"content": "a"}), b'data: {"choices": [{"index": 0, "del')
    chunks, error = await stream(upstream)
    assert (text(chunks), type(error)) == ("a", UpstreamTruncated)


async def test_one_unfinished_choice_of_two_is_truncated(upstream: FakeUpstream) -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": None}]}
    upstream.events(chunk({"content": "a"}), second, chunk({}, "stop"))
    chunks, error = await stream(upstream)
    assert (text(chunks), type(error)) == ("a", UpstreamTruncated)


@pytest.mark.parametrize(
    ("after", "end", "kind"),
    [
        (b"", End.RESET, UpstreamTruncated),
        (b"", End.CLOSE, UpstreamTruncated),
        (b"ff\r\ndata: {", End.CLOSE, UpstreamTruncated),
        (b"zz\r\n", End.CLOSE, UpstreamInvalid),
        (chunked(b"data: {nonsense\n\n"), End.HOLD, UpstreamInvalid),
    ],
    ids=["RST", "FIN", "FIN in a chunk", "not HTTP", "not JSON"],
)
async def test_what_came_with_the_head_is_brought_before_the_fault_that_came_with_it_too(
    upstream: FakeUpstream, after: bytes, end: End, kind: type[UpstreamError]
) -> None:
    good = stream_head() + b"".join(chunked(sse(chunk({"content": piece}))) for piece in "ab")
    upstream.sends([good + after], end=end)
    chunks, error = await stream(upstream)
    assert (text(chunks), type(error)) == ("ab", kind)


async def test_a_page_of_html_is_no_stream(upstream: FakeUpstream) -> None:
    upstream.refuses(200, "<html>Sign in</html>", {"content-type": "text/html; charset=utf-8"})
    chunks, error = await stream(upstream)
    assert (chunks, type(error)) == ([], UpstreamInvalid)


# --- several answers at once


async def test_what_other_choices_say_is_told_apart(upstream: FakeUpstream) -> None:
    def of(index: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"index": index, "delta": delta, "finish_reason": None} | more

    call = {"index": 0, "function": {"name": "look", "arguments": "{}"}}
    upstream.events(
        {"choices": [of(0, {"content": "a"}), of(1, {"content": "b"})]},
        {"choices": [of(2, {"reasoning_content": "c"})]},
        {"choices": [of(1, {"tool_calls": [call]}), of(0, {}, finish_reason="stop")]},
        {"choices": [of(index, {}, finish_reason="stop") for index in (1, 2)]},
    )
    chunks, error = await stream(upstream)
    assert (text(chunks), error) == ("a", None)
    assert [one.others for one in chunks] == [((1, "b"),), ((2, "c"),), ((1, "look{}"),), ()]


async def test_so_it_is_in_a_whole_answer(upstream: FakeUpstream) -> None:
    def of(index: int, **message: Any) -> dict[str, Any]:
        return {"index": index, "message": {"role": "assistant"} | message, "finish_reason": "stop"}

    upstream.answers(choices=[of(1, content="b"), of(0, content="a", reasoning_content="why"), of(2)])
    answer = await complete(upstream)
    assert (answer.content, answer.reasoning, answer.others) == ("a", "why", ((1, "b"),))


async def test_an_index_that_is_none_is_invalid(upstream: FakeUpstream) -> None:
    upstream.events({"choices": [{"index": [1], "delta": {"content": "a"}}]})
    chunks, error = await stream(upstream)
    assert (chunks, type(error)) == ([], UpstreamInvalid)


# --- unreachable


async def test_a_refused_connection_is_unreachable() -> None:
    with (
        refused_url() as url,
        pytest.raises(UpstreamUnreachable, match=r"acme: cannot connect to 127\.0\.0\.1"),
    ):
        await complete(url)


async def test_a_name_without_address_is_unreachable() -> None:
    with pytest.raises(UpstreamUnreachable, match=r"no address found for no-such-host\.invalid"):
        await complete("http://no-such-host.invalid/v1")


async def test_an_upstream_without_tls_is_unreachable_by_https(upstream: FakeUpstream) -> None:
    upstream.key = "x"
    with pytest.raises((UpstreamUnreachable, UpstreamTimeout)):
        await complete(upstream.url.replace("http:", "https:"), timeouts=FAST)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_egress_is_checked_at_connect(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(egress, "_source", egress.Policy)
    with pytest.raises(UpstreamUnreachable, match="LLMHUB_EGRESS_ALLOW"):
        await complete(upstream.url.replace("127.0.0.1", host))
    assert upstream.requests == []


async def test_a_key_that_cannot_be_sent_is_not_shown(upstream: FakeUpstream) -> None:
    with pytest.raises(UpstreamUnreachable) as caught:
        await complete(upstream, api_key=Secret(f"{KEY}\r\nX-Injected: 1"))
    assert "canary" not in str(caught.value)
    assert upstream.requests == []


# --- deadlines


async def test_a_tls_handshake_that_hangs_times_out_as_connect(upstream: FakeUpstream) -> None:
    started = time.monotonic()
    with pytest.raises(UpstreamTimeout) as caught:
        await complete(upstream.url.replace("http:", "https:"), timeouts=FAST)
    assert caught.value.phase == "connect"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("where", ["headers", "first_token"])
async def test_no_first_token_times_out(upstream: FakeUpstream, where: str) -> None:
    upstream.hangs(where)
    chunks, error = await stream(upstream, timeouts=FAST)
    assert chunks == []
    assert isinstance(error, UpstreamTimeout)
    assert error.phase == "first_token"
    assert await asyncio.to_thread(upstream.requests[0].wait_gone, 1)


async def test_comments_roles_and_single_bytes_are_no_first_token(upstream: FakeUpstream) -> None:
    drip = [b": comment\n\n", sse(chunk({"role": "assistant", "content": ""})), b":", b"x", b"\n\n"]
    upstream.events(*drip * 20, delay=0.02)
    chunks, error = await stream(upstream, timeouts=FAST)
    assert chunks == []
    assert isinstance(error, UpstreamTimeout)
    assert error.phase == "first_token"


async def test_silence_mid_stream_times_out_as_idle(upstream: FakeUpstream) -> None:
    upstream.hangs("idle")
    chunks, error = await stream(upstream, timeouts=FAST)
    assert text(chunks) == "Hello"
    assert isinstance(error, UpstreamTimeout)
    assert error.phase == "idle"


async def test_comments_and_pings_do_not_reset_the_idle_deadline(upstream: FakeUpstream) -> None:
    noise = [b": comment\n\n", b'event: ping\ndata: {"type": "ping"}\n\n'] * 30
    upstream.events(chunk({"content": "a"}), *noise, delay=0.03)
    started = time.monotonic()
    _, error = await stream(upstream, timeouts=FAST)
    assert isinstance(error, UpstreamTimeout)
    assert error.phase == "idle"
    assert time.monotonic() - started < 1.7


async def test_events_without_an_answer_do_not_reset_it_either(upstream: FakeUpstream) -> None:
    noise: list[dict[str, Any]] = [{"type": "ping"}, {"choices": None}]
    upstream.events(chunk({"content": "a"}), *noise * 30, delay=0.03)
    _, error = await stream(upstream, timeouts=FAST)
    assert isinstance(error, UpstreamTimeout)
    assert error.phase == "idle"


async def test_events_keep_a_slow_stream_alive(upstream: FakeUpstream) -> None:
    upstream.streams(["a", "b", "c", "d", "e"], delay=0.3)
    chunks, error = await stream(upstream, timeouts=replace(FAST, first_token=5, idle=1))
    assert error is None
    assert text(chunks) == "abcde"


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_total_deadline_ends_everything(upstream: FakeUpstream, streamed: bool) -> None:
    upstream.hangs("headers")
    with pytest.raises(UpstreamTimeout) as caught:  # noqa: PT012 - one of two calls
        if streamed:
            raise (await stream(upstream, seconds=0.4))[1] or AssertionError
        await complete(upstream, seconds=0.4)
    assert caught.value.phase == "total"
    assert await asyncio.to_thread(upstream.requests[0].wait_gone, 1)


async def test_a_slow_reader_does_not_run_into_the_idle_deadline(upstream: FakeUpstream) -> None:
    pieces = [f"{number} " for number in range(3 * AHEAD_CHUNKS)]
    upstream.streams(pieces, delay=0.002)
    tape = Tape()
    reader = tape.reader()
    task = asyncio.ensure_future(bring(upstream, tape, timeouts=FAST, seconds=20))
    got: list[StreamChunk] = []
    while not tape.closed or not reader.at_end:
        await asyncio.sleep(FAST.idle + 0.05)
        if task.done():
            tape.close()
        got += await reader.read()
    await task
    assert text(got) == "".join(pieces)


async def test_a_reader_that_reads_nothing_stops_the_upstream(upstream: FakeUpstream) -> None:
    """Bounded memory: what is not read stays with the upstream, in the sockets between."""
    piece = "x" * 10_000
    upstream.streams([piece] * 5000)
    tape = Collected()
    tape.reader()
    task = asyncio.ensure_future(bring(upstream, tape, seconds=60))
    assert await aeventually(lambda: len(tape.chunks) >= AHEAD_CHUNKS)
    await asyncio.sleep(0.5)
    assert len(tape.chunks) < 2 * AHEAD_CHUNKS
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
