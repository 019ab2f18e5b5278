"""What goes wrong with an answer over a websocket: told in words, by the codes of `/v1`; it stays open."""

from decimal import Decimal
from typing import Any

import pytest

from completions.models import State
from tests.fakes import USAGE, End, chunk, chunked, sse, stream_head
from tests.surfaces import test_v1_errors as table
from tests.surfaces import ws as shared
from tests.surfaces.v1 import DONE, PIECES, PROMPT, V1, cost
from tests.surfaces.ws import connect, is_gapless, text_of, told

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left
second_tries_come_soon = table._second_tries_come_soon
CALLS = [row for row in table.TABLE if table.name_of(row) not in ("no_key", "wrong_key")]


@pytest.mark.parametrize("row", CALLS, ids=table.name_of)
def test_each_error_has_the_type_code_and_param_that_it_has_on_v1(v1: V1, row: table.Row) -> None:
    socket = connect(v1)
    asked = row.makes(v1)

    socket.start("c1", **asked)

    frame = socket.hear()
    error = told(frame)
    assert (frame["type"], frame["id"], frame["seq"]) == ("error", "c1", 0)
    assert (error["type"], error["code"], error["param"]) == (row.type, row.code, row.param)
    assert ("retry_after" in frame["error"]) == row.waits
    socket.pong()


class TestACallThatIsRefused:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"requests_per_minute": 1}, "rate_limit_exceeded"),
            ({"concurrent_calls": 1}, "rate_limit_exceeded"),
        ],
    )
    def test_does_not_end_the_others_of_its_socket(self, v1: V1, change: dict[str, int], code: str) -> None:
        v1.set(v1.api_key, **change)
        v1.upstream.streams(PIECES, delay=0.05)
        socket = connect(v1)
        socket.start("a")
        frames = [socket.hear()]

        socket.start("b")

        frames += socket.frames(1)
        while frames[-1]["id"] != "b":
            frames += socket.frames(1)
        assert told(frames.pop())["code"] == code
        frames += socket.rest("a")
        assert text_of(frames) == "".join(PIECES)

    def test_of_a_spent_budget_can_be_made_once_it_is_raised(self, v1: V1) -> None:
        v1.set(v1.budget, amount=Decimal(0))
        socket = connect(v1)
        socket.start()
        error = told(socket.hear())
        assert (error["code"], str(v1.budget) in error["message"]) == ("budget_exceeded", True)

        v1.set(v1.budget, amount=Decimal(10))
        socket.start()

        assert socket.rest()[-1]["type"] == "done"


class TestAStreamThatBreaks:
    def test_says_so_after_all_that_came(self, v1: V1) -> None:
        v1.upstream.cuts(after=2)
        socket = connect(v1)

        socket.start()

        frames = socket.rest()
        assert is_gapless(frames)
        assert text_of(frames) == "piece0 piece1 "
        assert told(frames[-1])["code"] == "upstream_truncated"
        assert "done" not in {frame["type"] for frame in frames}
        assert v1.row().state == State.UPSTREAM_TRUNCATED

    @pytest.mark.parametrize(
        "event", [b"data: {nonsense\n\n", {"error": {"message": "it broke"}}], ids=["nonsense", "error"]
    )
    def test_by_nonsense_or_an_error_stops_there(self, v1: V1, event: Any) -> None:
        v1.upstream.events(chunk({"content": "one"}), event, chunk({"content": "two"}), DONE)
        socket = connect(v1)

        socket.start()

        frames = socket.rest()
        assert (text_of(frames), told(frames[-1])["code"]) == ("one", "upstream_invalid")
        row = v1.row()
        assert (row.state, row.cost_nano_usd) == (State.UPSTREAM_INVALID, cost(PROMPT, 1))

    def test_by_silence_is_ended(self, v1: V1) -> None:
        v1.patient_for(idle=0.2)
        v1.upstream.events(chunk({"content": "one"}), end=End.HOLD)
        socket = connect(v1)

        socket.start()

        assert told(socket.rest()[-1])["code"] == "upstream_timeout"
        assert v1.row().state == State.TIMEOUT_IDLE

    def test_can_be_read_again_with_its_error(self, v1: V1) -> None:
        v1.upstream.cuts(after=2)
        first = connect(v1)
        first.start()
        frames = first.rest()

        second = connect(v1)
        second.resume(frames[0]["stream"], 0)

        assert second.rest() == frames[1:]

    def test_leaves_its_socket_and_its_id_free(self, v1: V1) -> None:
        v1.upstream.cuts(after=1).streams(PIECES)
        socket = connect(v1)
        socket.start("c1")
        assert socket.rest()[-1]["type"] == "error"

        socket.start("c1")

        assert socket.rest()[-1]["type"] == "done"


def test_a_fault_of_the_hub_is_told_and_logged_and_nobody_waits_for_ever(
    v1: V1, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(*_: Any) -> None:
        raise ZeroDivisionError("a secret of the inside")

    socket = connect(v1)
    monkeypatch.setattr("completions.live.pipeline.start", breaks)

    socket.start()

    error = socket.refusal()
    assert error["code"] == "internal_error"
    assert "secret" not in error["message"]
    monkeypatch.setattr("completions.live.find", breaks)
    socket.resume("0" * 32)
    assert socket.refusal()["code"] == "internal_error"
    socket.pong()
    assert [record.exc_text is not None for record in caplog.records] == [True, True]
    caplog.clear()


def test_numbers_that_json_cannot_hold_elsewhere_are_relayed(v1: V1) -> None:
    part = {"index": 0, "id": "t1", "function": {"name": "f", "arguments": ""}, "large": 2**70}
    events: list[Any] = [
        chunk({"tool_calls": [part]}),
        chunk({}, "tool_calls"),
        chunk(None, usage=USAGE),
        DONE,
    ]
    v1.upstream.events(*events)
    socket = connect(v1)

    socket.start()

    frames = socket.rest()
    assert frames[1]["tool_calls"] == [part]
    assert frames[-1]["finish_reason"] == "tool_calls"


def test_half_a_surrogate_pair_is_replaced_as_on_v1(v1: V1) -> None:
    broken = sse(chunk({"content": "a"})).replace(b'"a"', b'"a\\ud83d"')
    steps = [
        stream_head(),
        chunked(broken),
        *(chunked(sse(one)) for one in (chunk({}, "stop"), DONE)),
        chunked(b""),
    ]
    v1.upstream.scripts(lambda _: list(steps))
    socket = connect(v1)

    socket.start()

    assert text_of(socket.rest()) == "a\ufffd"
