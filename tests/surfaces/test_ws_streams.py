"""Answers over a websocket, frame by frame: whole ones, several at once, cancelled ones."""

from typing import Any

import pytest

from completions.models import State
from tests.fakes import USAGE, End, chunk, chunked, sse, stream_head
from tests.surfaces import ws as shared
from tests.surfaces.v1 import DONE, HELLO, MODEL, PIECES, PROMPT, V1, cost
from tests.surfaces.ws import connect, is_gapless, text_of
from tests.waiting import eventually

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left

FINISH: list[Any] = [chunk({}, "stop"), chunk(None, usage=USAGE), DONE]


def types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


class TestFrames:
    def test_tell_who_answers_what_it_says_what_it_used_and_how_it_ended(self, v1: V1) -> None:
        v1.upstream.streams(PIECES, delay=0.01)
        socket = connect(v1)

        socket.start("c1")

        started, *deltas, usage, done = socket.rest()
        head = {"id": "c1", "stream": started["stream"]}
        begun = {"type": "started", "model": MODEL, "provider": "upstream", "cache": "BYPASS"}
        assert started == {**begun, **head, "seq": 0}
        assert [frame["content"] for frame in deltas] == list(PIECES)
        assert usage.items() >= {"type": "usage", "prompt_tokens": 9, "completion_tokens": 3}.items()
        assert usage["cost_usd"] == "0.0000525"
        assert done == {"type": "done", **head, "seq": len(PIECES) + 2, "finish_reason": "stop"}
        assert is_gapless([started, *deltas, usage, done])
        row = v1.row()
        assert (row.state, row.surface, row.stream, row.cost_nano_usd) == (State.OK, "ws", True, cost(9, 3))
        assert row.pk.hex == started["stream"]

    def test_come_when_the_upstream_sends_them(self, v1: V1) -> None:
        v1.upstream.events(chunk({"content": "one"}), chunk({"content": " two"}), delay=0.05, end=End.HOLD)
        socket = connect(v1)
        socket.start()

        assert socket.hear()["type"] == "started"
        assert socket.hear()["content"] == "one"
        assert socket.hear()["content"] == " two"

    def test_can_be_resumed_before_the_first_one(self, v1: V1) -> None:
        events = [chunk({"content": piece}) for piece in PIECES] + FINISH
        answer = [stream_head(), *(chunked(sse(event)) for event in events), chunked(b"")]
        v1.upstream.scripts(lambda _: [0.2, *answer])
        socket = connect(v1)
        socket.start("c1")
        stream = socket.stream_of("c1")
        socket.close()

        other = connect(v1)
        other.resume(stream)

        assert text_of(other.rest()) == "".join(PIECES)

    def test_hold_every_text_as_it_is(self, v1: V1) -> None:
        pieces = ["", "\x00\x1f", '"\\', "\r\n\u2028", "👩🏽‍🚀", "e\u0301", "</script>", "\ufeff"]
        v1.upstream.streams(pieces)
        socket = connect(v1)

        socket.start()

        assert text_of(socket.rest()) == "".join(pieces)

    def test_bring_reasoning_and_tool_calls_in_the_order_they_came(self, v1: V1) -> None:
        call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "look", "arguments": ""}}
        rest = {"index": 0, "function": {"arguments": "{}"}}
        deltas: list[dict[str, Any]] = [
            {"reasoning_content": "Hm."},
            {"content": "Let me look."},
            {"tool_calls": [call]},
            {"tool_calls": [rest]},
        ]
        v1.upstream.events(*map(chunk, deltas), *FINISH, delay=0.01)
        socket = connect(v1)

        socket.start(tools=[{"type": "function", "function": {"name": "look"}}])

        frames = socket.rest()
        fields = [set(frame) - {"id", "seq", "stream", "type"} for frame in frames[1:5]]
        assert fields == [{"reasoning"}, {"content"}, {"tool_calls"}, {"tool_calls"}]
        assert frames[1]["reasoning"] == "Hm."
        assert frames[3]["tool_calls"] + frames[4]["tool_calls"] == [call, rest]

    def test_tell_no_cost_where_no_price_is_known(self, v1: V1) -> None:
        v1.model.prices.all().delete()
        v1.budget.delete()
        socket = connect(v1)

        socket.start()

        assert socket.rest()[-2]["cost_usd"] is None


class TestManyStreams:
    def test_run_on_one_socket_each_with_its_own_numbers(self, v1: V1) -> None:
        v1.upstream.streams(PIECES, delay=0.01)
        socket = connect(v1)
        names = [f"c{number}" for number in range(10)]
        for name in names:
            socket.start(name)

        frames: list[dict[str, Any]] = []
        while types(frames).count("done") < len(names):
            frames.append(socket.hear())

        for name in names:
            mine = [frame for frame in frames if frame["id"] == name]
            assert is_gapless(mine)
            assert text_of(mine) == "".join(PIECES)
        assert [frame["id"] for frame in frames] != sorted(frame["id"] for frame in frames)
        assert len({frame["stream"] for frame in frames}) == len(v1.rows()) == len(names)

    def test_an_id_may_be_used_again_once_its_stream_has_ended(self, v1: V1) -> None:
        socket = connect(v1)
        for _ in range(2):
            socket.start("c1")
            assert socket.rest()[-1]["type"] == "done"

    def test_an_id_may_not_be_used_twice_at_once(self, v1: V1) -> None:
        v1.upstream.hangs("idle")
        socket = connect(v1)
        socket.start("c1")
        socket.frames(2)

        socket.start("c1")

        error = socket.refusal()
        assert (error["code"], error["param"]) == ("invalid_value", "id")
        assert "'c1'" in error["message"]
        assert len(v1.upstream.requests) == 1


class TestCancel:
    def test_ends_one_stream_of_many(self, v1: V1) -> None:
        v1.upstream.streams(PIECES, delay=0.05)
        socket = connect(v1)
        for name in ("a", "b", "c"):
            socket.start(name)
        frames = socket.frames(6)

        socket.cancel("b")

        while types(frames).count("done") < 2:
            frames.append(socket.hear())
        ends = {frame["id"]: frame["type"] for frame in frames}  # the last of each
        assert ends == {"a": "done", "b": "cancelled", "c": "done"}
        assert is_gapless([frame for frame in frames if frame["id"] == "b"])
        assert sorted(row.state for row in v1.rows()) == [State.CANCELLED, State.OK, State.OK]

    def test_closes_the_upstream_at_once_and_bills_what_came(self, v1: V1) -> None:
        v1.upstream.events(*(chunk({"content": piece}) for piece in PIECES[:3]), end=End.HOLD)
        socket = connect(v1)
        socket.start()
        frames = [socket.hear()]
        while text_of(frames) != "one two three":
            frames.append(socket.hear())

        socket.cancel()

        assert socket.hear()["type"] == "cancelled"
        assert v1.upstream.requests[0].wait_gone(1)
        row = v1.row()
        assert (row.state, row.completion_tokens, row.usage_source) == (State.CANCELLED, 3, "counted")
        assert row.cost_nano_usd == cost(PROMPT, 3)

    def test_before_the_upstream_answers(self, v1: V1) -> None:
        v1.upstream.hangs("headers")
        socket = connect(v1)
        socket.start()
        v1.upstream.wait_for()

        socket.cancel()

        assert socket.hear().items() >= {"type": "cancelled", "id": "c1", "seq": 0}.items()
        assert v1.upstream.requests[0].wait_gone(1)
        assert v1.row().state == State.CANCELLED

    def test_the_moment_it_was_started(self, v1: V1) -> None:
        """Whether the hub began or not, the caller is told once, and a call that was made has its row."""
        v1.upstream.streams(PIECES, delay=0.01)
        socket = connect(v1)
        for number in range(20):
            socket.start(f"c{number}")
            if number % 2:
                socket.pong()
            socket.cancel(f"c{number}")
            assert socket.rest(f"c{number}")[-1]["type"] == "cancelled"
        socket.pong()
        assert eventually(lambda: len(v1.upstream.requests) <= len(v1.rows()))
        assert {row.state for row in v1.rows()} <= {State.CANCELLED}

    def test_of_what_is_not_known_or_over_is_passed_over(self, v1: V1) -> None:
        socket = connect(v1)
        socket.cancel("never")
        socket.start()
        socket.rest()
        socket.cancel()

        socket.pong()

        assert v1.row().state == State.OK


def test_a_request_of_the_wire_passes_as_it_is(v1: V1) -> None:
    socket = connect(v1)

    socket.start(temperature=0.5, stop=["x"], max_tokens=7, seed=3, user="u1", top_k=5)

    socket.rest()
    asked = v1.upstream.requests[0].body
    assert asked["messages"] == HELLO
    wanted = {"temperature": 0.5, "stop": ["x"], "max_tokens": 7, "seed": 3, "top_k": 5}
    assert asked | wanted == asked
    assert v1.row().end_user == "u1"


def test_more_answers_than_one_are_refused_as_the_frames_could_not_tell_them_apart(v1: V1) -> None:
    socket = connect(v1)

    socket.start(n=2)

    error = socket.refusal()
    assert (error["code"], error["param"]) == ("invalid_value", "n")
    assert v1.upstream.requests == []


@pytest.mark.parametrize("field", ["api_base", "base_url", "api_key", "extra_headers", "organization"])
def test_a_caller_never_chooses_the_providers_address_or_key(v1: V1, field: str) -> None:
    socket = connect(v1)

    socket.start(**{field: "http://example.com"})

    assert socket.refusal()["param"] == field


class TestTheCache:
    def test_answers_an_equal_call_in_frames(self, v1: V1) -> None:
        v1.upstream.streams(PIECES)
        socket = connect(v1)
        socket.start("c1", temperature=0)
        first = socket.rest()
        socket.start("c2", temperature=0)
        started, *frames = socket.rest("c2")

        assert (started["cache"], frames[-1]["type"]) == ("HIT", "done")
        assert text_of(frames) == text_of(first) == "".join(PIECES)
        assert is_gapless([started, *frames])
        assert len(v1.upstream.requests) == 1

    def test_does_as_the_frame_says(self, v1: V1) -> None:
        socket = connect(v1)
        request = {"model": MODEL, "messages": HELLO}
        told: list[Any] = []
        for word in ("on", "on", "refresh", "off"):
            socket.say("start", id=f"c-{len(told)}", request=request, cache=word, cache_ttl_seconds=60)
            told.append(socket.rest(f"c-{len(told)}")[0]["cache"])

        assert told == ["MISS", "HIT", "MISS", "BYPASS"]

    def test_refuses_what_it_does_not_know(self, v1: V1) -> None:
        socket = connect(v1)
        socket.say("start", id="c1", request={"model": MODEL, "messages": HELLO}, cache="maybe")

        assert "cache must be one of" in socket.hear()["error"]["message"]
