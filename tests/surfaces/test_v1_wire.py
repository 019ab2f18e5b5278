"""Streams that look odd and are right: whatever way the bytes come, no letter is lost."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from completions.models import State
from tests.fakes import USAGE, chunk, chunked, sse, stream_head
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import DONE, PIECES, V1, cost, text_of

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

SAID = ("one", " two", "\n\n", "data: [DONE]", "\r", "é", "😀", "\u2028", '"\\')
EVENTS: list[Any] = [
    chunk({"role": "assistant", "content": ""}),
    *[chunk({"content": piece}) for piece in SAID],
    chunk({}, "stop"),
    chunk(None, usage=USAGE),
]


def lines(events: Sequence[Any] = EVENTS) -> bytes:
    """The events in plain UTF-8, nothing escaped that need not be."""
    return b"".join(b"data: %b\n\n" % json.dumps(event, ensure_ascii=False).encode() for event in events)


PLAIN = lines() + sse(DONE)


def pretty(event: Any) -> bytes:
    """One event over many data lines."""
    text = json.dumps(event, ensure_ascii=False, indent=1)
    return b"".join(b"data: %b\n" % line.encode() for line in text.split("\n")) + b"\n"


def headed(body: bytes, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + head + b"\r\n" + body


STREAMS: dict[str, bytes] = {
    "one piece": PLAIN,
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "CR": PLAIN.replace(b"\n", b"\r"),
    "no space after the colon": PLAIN.replace(b"data: {", b"data:{"),
    "two spaces after the colon": PLAIN.replace(b"data: {", b"data:  {"),
    "BOM": b"\xef\xbb\xbf" + PLAIN,
    "many data lines": b"".join(map(pretty, EVENTS)) + sse(DONE),
    "comments": b": hello\n\n" + PLAIN.replace(b"data: {", b": ping\n:\ndata: {"),
    "other fields": PLAIN.replace(b"data: {", b"id: 7\nevent: chunk\nretry: 5\nx\nx: y\ndata: {"),
    "pings": PLAIN.replace(b"data: {", b'event: ping\ndata: {"type": "ping"}\n\ndata: {'),
    "spaces before [DONE]": lines() + b"data:   [DONE]\n\n",
    "spaces after [DONE]": lines() + b"data: [DONE] \t\n\n",
    "pings without a name": PLAIN.replace(b"data: {", b'data: {"type": "ping"}\n\ndata: {'),
    "figures of the upstream's own": PLAIN.replace(
        b"data: {", b'data: {"object": "metrics", "ms": 3}\n\ndata: {'
    ),
    "events of no choice": PLAIN.replace(b"data: {", b'data: {"id": "c1", "choices": null}\n\ndata: {'),
    "empty data": b"data\n\n" + PLAIN.replace(b"data: {", b"data:\n\ndata: {"),
    "no blank line at the end": PLAIN.rstrip(b"\n"),
    "no [DONE]": lines(),
    "no [DONE] and no blank line at the end": lines().rstrip(b"\n"),
    "blank lines everywhere": b"\n\n\n" + PLAIN.replace(b"\n\n", b"\n\n\n\n"),
    "escaped": sse(*EVENTS, DONE),
    "more after [DONE]": PLAIN + sse(chunk({"content": "never"})),
}


def check(v1: V1, text: str = "".join(SAID)) -> None:
    *chunks, done = v1.stream()

    assert done == DONE
    assert text_of(chunks) == text
    row = v1.row()
    assert (row.state, row.finish_reason, row.attempts) == (State.OK, "stop", 1)
    assert (row.usage_source, row.cost_nano_usd) == ("provider", cost(9, 3))


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_an_odd_stream_is_read_as_the_standard_says(v1: V1, stream: bytes) -> None:
    v1.upstream.events(stream)
    check(v1)


NO_ANSWERS: list[Any] = [{"type": "ping"}, {"object": "metrics", "ms": 3}, {"foo": 1}, {"choices": None}, {}]


def test_events_that_are_no_piece_of_an_answer_are_not_passed_on(v1: V1) -> None:
    v1.upstream.events(*NO_ANSWERS, *EVENTS[:2], *NO_ANSWERS, *EVENTS[2:], *NO_ANSWERS, DONE)

    *chunks, done = v1.stream()

    assert done == DONE
    assert [one["choices"] for one in chunks] == [one["choices"] for one in EVENTS[:-1]]


def test_usage_without_choices_is_read_and_not_passed_on(v1: V1) -> None:
    v1.upstream.events(*EVENTS[:-1], {"id": "c1", "choices": None, "usage": USAGE}, DONE)
    check(v1)


def test_events_that_are_no_piece_of_an_answer_make_none(v1: V1) -> None:
    v1.upstream.events(*NO_ANSWERS, DONE)

    assert v1.chat(stream=True).json()["error"]["code"] == "upstream_invalid"


@pytest.mark.parametrize("name", ["one piece", "CRLF", "many data lines", "BOM", "comments"])
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_bytes_may_be_split_anywhere(v1: V1, name: str, size: int) -> None:
    stream = STREAMS[name]
    v1.upstream.events(*[stream[n : n + size] for n in range(0, len(stream), size)])
    check(v1)


def test_single_bytes_on_the_wire_lose_nothing(v1: V1) -> None:
    short = lines([chunk({"content": "né😀"}), chunk({}, "stop"), chunk(None, usage=USAGE)]) + sse(DONE)
    wire = stream_head() + chunked(short[:100]) + chunked(short[100:]) + chunked(b"")
    v1.upstream.sends([wire[n : n + 1] for n in range(len(wire))], delay=0.0001)
    check(v1, "né😀")


FRAMINGS: dict[str, bytes] = {
    "until the connection ends": headed(PLAIN),
    "a length": headed(PLAIN, b"content-length: %d\r\n" % len(PLAIN)),
    "chunks with extensions and trailers": headed(
        b"%x;a=b\r\n%b\r\n0\r\nx-later: 1\r\n\r\n" % (len(PLAIN), PLAIN), b"transfer-encoding: chunked\r\n"
    ),
    "after early hints": b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + headed(PLAIN),
    "HTTP/1.0": headed(PLAIN).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "identity encoding": headed(PLAIN, b"content-encoding: identity\r\n"),
    "another type": headed(PLAIN).replace(b"text/event-stream", b"text/plain"),
    "no type": headed(PLAIN).replace(b"content-type: text/event-stream\r\n", b""),
}


@pytest.mark.parametrize("answer", FRAMINGS.values(), ids=FRAMINGS)
def test_a_body_may_be_framed_in_any_way(v1: V1, answer: bytes) -> None:
    v1.upstream.sends([answer])
    check(v1)


BROKEN: dict[str, tuple[bytes, str]] = {
    "a byte that is none": (b"a\xffb", "a\ufffdb"),
    "half a letter": (b"a\xc3", "a\ufffd"),
    "half an emoji": (b"\xf0\x9f\x98b", "\ufffdb"),
    "half a surrogate pair": (b"a\\ud83d b", "a\ufffd b"),
    "a surrogate in UTF-8": (b"a\xed\xa0\x80b", "a\ufffd\ufffd\ufffdb"),
}


@pytest.mark.parametrize(("sent", "read"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_letters_that_are_none_become_the_letter_for_that(
    v1: V1, sent: bytes, read: str, stream: bool
) -> None:
    said = b'{"role": "assistant", "content": "%b"}' % sent
    if stream:
        event = b'data: {"choices": [{"index": 0, "delta": %b}]}\n\n' % said
        v1.upstream.events(event, chunk({}, "stop"), chunk(None, usage=USAGE), DONE)
        check(v1, read)
        return
    body = b'{"choices": [{"index": 0, "message": %b, "finish_reason": "stop"}]}' % said
    v1.upstream.refuses(200, body)
    assert v1.chat().json()["choices"][0]["message"]["content"] == read
    assert v1.row().state == State.OK


def test_a_line_of_almost_1_mib_is_no_fault(v1: V1) -> None:
    long = "x" * 1_000_000
    v1.upstream.events(*[chunk({"content": long})] * 3, chunk({}, "stop"), chunk(None, usage=USAGE), DONE)
    check(v1, long * 3)


def test_ten_thousand_chunks_at_once_are_passed_on(v1: V1) -> None:
    pieces = [f"{number} " for number in range(10_000)]
    events = lines(
        [*[chunk({"content": piece}) for piece in pieces], chunk({}, "stop"), chunk(None, usage=USAGE)]
    )
    v1.upstream.events(events, DONE)
    check(v1, "".join(pieces))


def test_pieces_come_in_order_while_others_stream(v1: V1) -> None:
    v1.upstream.streams(PIECES * 20)
    for _ in range(5):
        assert text_of(v1.stream()) == "".join(PIECES * 20)
