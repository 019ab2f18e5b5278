"""What one upstream can do wrong once its answer has begun: an error frame, and what came is paid for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from completions import tokens
from completions.models import State
from tests.fakes import End, chunk, chunked, sse, stream_head
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import DONE, MIB, MODEL, PIECES, PROMPT, V1, checked, cost, peak_bytes, text_of

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

BEGUN = [chunk({"role": "assistant", "content": ""}), *[chunk({"content": piece}) for piece in PIECES[:2]]]
TEXT, TOKENS = "one two", 2  # that BEGUN delivers
MORE: list[Any] = [chunk({"content": " three"}), chunk({}, "stop"), DONE]


Makes = Callable[[V1], object]


def then(*events: Any, **how: Any) -> Makes:
    """An upstream that begins well and goes on so."""
    return lambda v1: v1.upstream.events(*BEGUN, *events, **how)


def raw(*parts: bytes, end: End = End.CLOSE) -> Makes:
    """An upstream that begins well, and then sends these bytes instead of chunks."""
    return lambda v1: v1.upstream.sends([*_head(), *parts], delay=0.02, end=end)


def falls_silent(v1: V1) -> None:
    v1.patient_for(idle=0.2)
    v1.upstream.events(*BEGUN, end=End.HOLD)


def sends_comments_only(v1: V1) -> None:
    v1.patient_for(idle=0.2)
    noise = [b": comment\n\n", b'event: ping\ndata: {"type": "ping"}\n\n', b"data:\n\n", b"id: 5\n\n"]
    v1.upstream.sends([*_head(), *map(chunked, noise * 25)], delay=0.02)


def sends_single_bytes(v1: V1) -> None:
    v1.patient_for(idle=0.2)
    event = sse(chunk({"content": " three"}))
    v1.upstream.sends([*_head(), *[chunked(event[n : n + 1]) for n in range(100)]], delay=0.02)


def _head() -> Sequence[bytes]:
    return [stream_head() + b"".join(chunked(sse(event)) for event in BEGUN)]


def asks_in_vain(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message} | fields}


SECOND = {"choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": None}]}


@dataclass(frozen=True)
class Fault:
    """What the last frame says, and how the row ends."""

    makes: Makes
    code: str
    state: State
    tokens: int = TOKENS


CUT = ("upstream_truncated", State.UPSTREAM_TRUNCATED)
INVALID = ("upstream_invalid", State.UPSTREAM_INVALID)
SILENT = ("upstream_timeout", State.TIMEOUT_IDLE)
FAULTS = {
    "ends well but unfinished": Fault(then(), *CUT),
    "FIN": Fault(then(end=End.CLOSE), *CUT),
    "RST": Fault(then(end=End.RESET), *CUT),
    "FIN inside an HTTP chunk": Fault(raw(b"ff\r\ndata: {"), *CUT),
    "RST inside an HTTP chunk": Fault(raw(b"ff\r\ndata: {", end=End.RESET), *CUT),
    "ends inside an event": Fault(then(b'data: {"choices": [{"index": 0, "del'), *CUT),
    "ends after one of two answers": Fault(then(SECOND, chunk({}, "stop")), *CUT, tokens=TOKENS + 1),
    "an event that is not JSON": Fault(then(b"data: {nonsense\n\n", *MORE), *INVALID),
    "an event that is cut": Fault(then(b'data: {"choices": [\n\n', *MORE), *INVALID),
    "an event that is no object": Fault(then(b"data: [1]\n\n", *MORE), *INVALID),
    "choices of another shape": Fault(then({"choices": {"0": 1}}, *MORE), *INVALID),
    "a choice of another shape": Fault(then({"choices": [1]}, *MORE), *INVALID),
    "a delta of another shape": Fault(then({"choices": [{"delta": 5}]}, *MORE), *INVALID),
    "an error": Fault(then(asks_in_vain("it broke"), *MORE), *INVALID),
    "an error event": Fault(then(b'event: error\ndata: {"message": "it broke"}\n\n', *MORE), *INVALID),
    "an error as old vLLM sends it": Fault(
        then({"object": "error", "message": "it broke", "code": 40303}, *MORE), *INVALID
    ),
    "an error by its type": Fault(then({"type": "api_error", "note": "it broke"}, *MORE), *INVALID),
    "an error of a web framework": Fault(then({"detail": "it broke"}, *MORE), *INVALID),
    "an overload": Fault(
        then(asks_in_vain("busy", code=503), *MORE), "server_is_overloaded", State.UPSTREAM_ERROR
    ),
    "a limit": Fault(
        then(asks_in_vain("slow", code=429), *MORE), "rate_limit_exceeded", State.UPSTREAM_ERROR
    ),
    "bytes that are not HTTP": Fault(raw(b"zz\r\nnonsense\r\n"), *INVALID),
    "a line over 1 MiB": Fault(then(chunk({"content": "x" * MIB}), *MORE), *INVALID),
    "silence": Fault(falls_silent, *SILENT),
    "comments only": Fault(sends_comments_only, *SILENT),
    "single bytes": Fault(sends_single_bytes, *SILENT),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_fails_later_is_an_error_frame_and_what_came_is_paid_for(v1: V1, fault: Fault) -> None:
    fault.makes(v1)

    *chunks, last = v1.stream(max_tokens=1000)

    assert last.keys() == {"error"}
    assert checked(last["error"])["code"] == fault.code
    assert DONE not in chunks
    assert text_of(chunks) == TEXT
    row = v1.row()
    assert (row.state, row.attempts) == (fault.state, 1)
    assert (row.prompt_tokens, row.completion_tokens) == (PROMPT, fault.tokens)
    assert (row.usage_source, row.usage_anomaly) == ("counted", False)
    assert row.cost_nano_usd == cost(PROMPT, fault.tokens) < row.hold_nano
    assert len(v1.upstream.requests) == 1


def test_the_whole_call_has_a_deadline_however_much_comes(v1: V1) -> None:
    v1.patient_for(total=0.4)
    v1.upstream.streams(PIECES * 20, delay=0.03)

    *chunks, last = v1.stream()

    assert checked(last["error"])["code"] == "upstream_timeout"
    row = v1.row()
    assert row.state == State.TIMEOUT_TOTAL
    delivered = tokens.count_text(text_of(chunks), MODEL).count
    assert 3 < delivered == row.completion_tokens
    assert row.cost_nano_usd == cost(PROMPT, delivered)
    assert v1.upstream.requests[0].wait_gone(1)


@pytest.mark.parametrize("makes", [falls_silent, sends_comments_only])
def test_silence_is_noticed_in_time_and_the_upstream_let_go(v1: V1, makes: Makes) -> None:
    makes(v1)

    v1.stream()

    assert v1.upstream.requests[0].wait_gone(1)
    assert 150 <= (v1.row().latency_ms or 0) < 3000


def test_a_line_of_100_mb_is_read_up_to_the_cap(v1: V1) -> None:
    v1.upstream.sends([*_head(), chunked(b"data: "), *[chunked(b"x" * MIB)] * 100])
    before = peak_bytes()

    *chunks, last = v1.stream()

    assert (text_of(chunks), last["error"]["code"]) == (TEXT, "upstream_invalid")
    assert v1.upstream.requests[0].wait_gone(1)
    assert v1.upstream.sent < 16 * MIB
    assert peak_bytes() - before < 32 * MIB
    assert v1.row().cost_nano_usd == cost(PROMPT, TOKENS)


def test_a_length_that_is_shorter_than_the_stream_cuts_it(v1: V1) -> None:
    events = sse(*BEGUN, *MORE)
    length = len(sse(*BEGUN)) + 10
    head = {"content-type": "text/event-stream", "content-length": str(length)}
    v1.upstream.refuses(200, events, head).answers()

    *chunks, last = v1.stream()

    assert (text_of(chunks), last["error"]["code"]) == (TEXT, "upstream_truncated")
    assert v1.chat().status_code == 200  # what followed is nobody's answer


def test_what_the_upstream_reported_before_it_broke_off_is_believed(v1: V1) -> None:
    totals = [{"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n} for n in range(3)]
    marked = [event | {"usage": usage} for event, usage in zip(BEGUN, totals, strict=True)]
    v1.upstream.events(*marked, end=End.RESET)

    *_, last = v1.stream(stream_options={"include_usage": True})

    assert last["error"]["code"] == "upstream_truncated"
    row = v1.row()
    assert (row.prompt_tokens, row.completion_tokens, row.usage_source) == (9, 2, "provider")
    assert row.cost_nano_usd == cost(9, 2)


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "one two three"},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"at": 5}'}}]},
        {"refusal": "one two three"},
    ],
    ids=["reasoning", "tool call", "refusal"],
)
def test_whatever_was_delivered_costs_something(v1: V1, delta: dict[str, Any]) -> None:
    v1.upstream.events(chunk(delta), end=End.CLOSE)

    first, last = v1.stream()

    assert first["choices"][0]["delta"] == delta
    assert last["error"]["code"] == "upstream_truncated"
    row = v1.row()
    assert (row.completion_tokens or 0) >= 3
    assert (row.cost_nano_usd or 0) > cost(PROMPT, 0)


def test_every_answer_of_several_costs_something(v1: V1) -> None:
    v1.upstream.events(*BEGUN, SECOND, SECOND, end=End.CLOSE)

    v1.stream(n=2)

    assert (v1.row().completion_tokens or 0) > TOKENS
