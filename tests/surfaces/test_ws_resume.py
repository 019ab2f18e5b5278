"""A lost socket loses nothing: its streams go on, and are read on from where they were."""

import time
from typing import Any

import pytest
from pytest_django import Settings

from completions.models import Completion, State
from tests.fakes import USAGE, chunk, chunked, sse, stream_head
from tests.surfaces import ws as shared
from tests.surfaces.v1 import DONE, PIECES, PROMPT, V1, cost
from tests.surfaces.ws import begin, connect, is_gapless, text_of

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left

TEXT = ["Der ", "Bär", ' sagt: "', "👩🏽‍🚀", "\\n", "\n\r\n", "e\u0301", "\u2028", " end", "."]
FRAMES = len(TEXT) + 3  # started, deltas, usage, done
FINISH: list[Any] = [chunk({}, "stop"), chunk(None, usage=USAGE), DONE]


class TestAfterACut:
    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    def test_at_any_frame_the_rest_comes_and_nothing_of_it_twice(self, v1: V1, reset: bool) -> None:
        v1.upstream.streams(TEXT, delay=0.04)
        firsts = [connect(v1) for _ in range(FRAMES)]
        for socket in firsts:
            socket.start()
        cut = []
        for count, first in enumerate(firsts, start=1):  # while all of them go on
            before = first.upto(count)
            first.leave(reset=reset)
            second = connect(v1)
            second.resume(before[0]["stream"], before[-1]["seq"])
            cut.append((before, second))

        for before, second in cut:
            frames = before if before[-1]["type"] == "done" else before + second.rest()
            assert is_gapless(frames)
            assert text_of(frames).encode() == "".join(TEXT).encode()
            assert [frame["type"] for frame in frames[-2:]] == ["usage", "done"]
        rows = v1.rows()
        assert {(row.state, row.cost_nano_usd) for row in rows} == {(State.OK, cost(9, 3))}
        assert len(rows) == len(v1.upstream.requests) == FRAMES

    def test_again_and_again_after_every_frame(self, v1: V1) -> None:
        v1.upstream.streams(TEXT, delay=0.01)
        socket = connect(v1)
        socket.start()
        frames = [socket.hear()]
        while frames[-1]["type"] != "done":
            socket.leave(reset=True)
            socket = connect(v1)
            socket.resume(frames[0]["stream"], frames[-1]["seq"])
            frames.append(socket.hear())

        assert is_gapless(frames)
        assert text_of(frames) == "".join(TEXT)
        assert v1.row().state == State.OK
        assert len(v1.upstream.requests) == 1

    def test_all_of_it_comes_again_to_who_asks_from_the_beginning(self, v1: V1) -> None:
        v1.upstream.streams(TEXT)
        first = connect(v1)
        first.start()
        frames = first.rest()

        second = connect(v1)
        second.say("resume", stream=frames[0]["stream"])

        assert second.rest() == frames

    def test_many_streams_of_one_socket_are_read_on_by_another(self, v1: V1) -> None:
        v1.upstream.streams(TEXT, delay=0.01)
        first = connect(v1)
        names = ["a", "b", "c", "d"]
        for name in names:
            first.start(name)
        before = first.frames(12)
        first.leave()

        second = connect(v1)
        frames = list(before)
        for name in names:
            mine = [frame for frame in before if frame["id"] == name]
            if mine:
                second.resume(mine[0]["stream"], mine[-1]["seq"])
        read = {frame["id"] for frame in before}
        while sum(frame["type"] == "done" for frame in frames) < len(read):
            frames.append(second.hear())

        for name in read:
            mine = [frame for frame in frames if frame["id"] == name]
            assert is_gapless(mine)
            assert text_of(mine) == "".join(TEXT)

    def test_it_can_be_cancelled_by_who_reads_it_on(self, v1: V1) -> None:
        first, frames = begin(v1, *PIECES[:2])
        first.leave()
        second = connect(v1)
        second.resume(frames[0]["stream"], frames[-1]["seq"])
        second.pong()

        second.cancel("c1")

        assert second.hear()["type"] == "cancelled"
        row = v1.row()
        assert (row.state, row.cost_nano_usd) == (State.CANCELLED, cost(PROMPT, 2))

    def test_it_can_be_cancelled_by_its_own_name_without_being_read(self, v1: V1) -> None:
        first, frames = begin(v1, *PIECES[:2])
        first.leave(reset=True)
        second = connect(v1)

        second.say("cancel", stream=frames[0]["stream"])

        assert v1.upstream.requests[0].wait_gone(1)
        assert v1.row().state == State.CANCELLED


class TestTheGrace:
    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    def test_then_the_upstream_is_closed_and_what_came_is_billed(
        self, v1: V1, settings: Settings, reset: bool
    ) -> None:
        settings.LLMHUB_STREAM_GRACE_SECONDS = 0.3
        v1.set(v1.api_key, concurrent_calls=1)
        socket, _ = begin(v1, *PIECES[:3])
        left = time.monotonic()

        socket.leave(reset=reset)

        assert v1.upstream.requests[0].wait_gone(5)
        gone = v1.upstream.requests[0].disconnected_at
        assert gone is not None
        assert 0.25 < gone - left < 5
        row = v1.row()
        assert (row.state, row.completion_tokens, row.usage_source) == (State.CLIENT_GONE, 3, "counted")
        assert row.cost_nano_usd == cost(PROMPT, 3)
        assert v1.budget.windows.get().spent_nano == cost(PROMPT, 3)
        v1.upstream._scripts.clear()
        assert v1.chat().status_code == 200  # the key's only slot is free

    def test_none_ends_the_call_as_soon_as_its_socket_is_lost(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_STREAM_GRACE_SECONDS = 0
        socket, _ = begin(v1, "one")

        socket.leave()

        assert v1.upstream.requests[0].wait_gone(1)
        assert v1.row().state == State.CLIENT_GONE

    def test_ends_when_somebody_reads_it_on_and_begins_anew_when_that_one_leaves(
        self, v1: V1, settings: Settings
    ) -> None:
        settings.LLMHUB_STREAM_GRACE_SECONDS = 0.25
        first, (begun, _) = begin(v1, "one")
        first.leave()
        second = connect(v1)
        second.resume(begun["stream"], 1)
        second.pong()

        assert not v1.upstream.requests[0].wait_gone(0.4)

        second.leave()
        assert v1.upstream.requests[0].wait_gone(2)
        assert v1.row().state == State.CLIENT_GONE

    def test_a_page_that_closes_its_socket_in_order_has_it_too(self, v1: V1) -> None:
        first, (begun, _) = begin(v1, "one")
        first.close()

        second = connect(v1)
        second.resume(begun["stream"], 0)

        assert second.hear()["content"] == "one"

    def test_who_comes_later_is_told_what_came_and_that_it_was_ended(
        self, v1: V1, settings: Settings
    ) -> None:
        settings.LLMHUB_STREAM_GRACE_SECONDS = 0
        first, (begun, *_) = begin(v1, "one", " two")
        first.leave()
        assert v1.row().state == State.CLIENT_GONE

        second = connect(v1)
        second.resume(begun["stream"], 0)

        *deltas, error = second.rest()
        assert text_of(deltas) == "one two"
        assert shared.told(error)["code"] == "call_ended"


class TestTheSameStreamTwice:
    def test_on_one_socket_it_is_read_from_the_newer_place_on(self, v1: V1) -> None:
        socket, (begun, *deltas) = begin(v1, "one", " two")

        for _ in range(5):
            socket.resume(begun["stream"], 0)
            assert socket.frames(len(deltas)) == deltas

        socket.cancel()
        assert socket.hear()["type"] == "cancelled"  # once
        socket.pong()
        assert v1.row().state == State.CANCELLED

    def test_on_two_sockets_each_gets_all_of_it(self, v1: V1) -> None:
        v1.upstream.streams(TEXT, delay=0.01)
        first, second = connect(v1), connect(v1)
        first.start()
        begun = first.hear()
        second.resume(begun["stream"])

        assert [begun, *first.rest()] == second.rest()

    def test_a_stalled_socket_does_not_hold_up_the_one_that_took_over(self, v1: V1) -> None:
        v1.upstream.streams(["word " * 2000] * 300)
        stalled = connect(v1, buffer=4096)
        stalled.start()
        begun = stalled.hear()
        second = connect(v1)
        second.resume(begun["stream"], 0)

        frames = [begun, *second.rest()]

        assert is_gapless(frames)
        assert frames[-1]["type"] == "done"

    def test_two_streams_of_one_id_are_not_read_on_one_socket(self, v1: V1) -> None:
        """Nobody could tell which of them a cancel means."""
        _, (theirs, _) = begin(v1, "one")
        socket, (mine, _) = begin(v1, "one")
        assert mine["stream"] != theirs["stream"]

        socket.resume(theirs["stream"])

        frame = socket.hear()
        assert frame["resumed"] == theirs["stream"]
        assert shared.told(frame)["param"] == "id"
        other = connect(v1)
        other.resume(theirs["stream"])
        other.frames(2)
        other.start("c1")
        assert other.refusal()["param"] == "id"


def test_a_stream_that_waits_for_its_first_word_can_be_read_on(v1: V1) -> None:
    """Nothing was told yet; its name is that of its row."""
    events: list[Any] = [chunk({"content": "x"}), *FINISH]
    v1.upstream.scripts(lambda _: [0.3, stream_head(), *(chunked(sse(one)) for one in events), chunked(b"")])
    first = connect(v1)
    first.start()
    v1.upstream.wait_for()
    first.leave()
    second = connect(v1)

    second.resume(Completion.objects.get().pk.hex)

    assert [frame["type"] for frame in second.rest()] == ["started", "delta", "usage", "done"]
