"""Streams that are kept for who comes back: how long, how much of them, and for whom."""

import gc
import weakref
from typing import Any

import pytest

from completions import live
from completions.live import stream as live_stream
from tests.factories import make_key, make_project, make_staff
from tests.surfaces import ws as shared
from tests.surfaces.v1 import V1
from tests.surfaces.ws import Socket, begin, connect, cookie, ticket
from tests.waiting import eventually

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left

TEXT = [f"word{number} " for number in range(10)]


class TestAFinishedStream:
    @pytest.fixture
    def finished(self, v1: V1) -> list[dict[str, Any]]:
        """Its frames."""
        v1.upstream.streams(TEXT)
        socket = connect(v1)
        socket.start()
        frames = socket.rest()
        socket.close()
        return frames

    def test_can_be_read_for_a_while(self, v1: V1, finished: list[dict[str, Any]]) -> None:
        socket = connect(v1)
        for last_seq in range(-1, len(finished) - 1):
            socket.resume(finished[0]["stream"], last_seq)
            assert socket.rest() == finished[last_seq + 1 :]
            socket.pong()

    def test_of_which_all_was_read_has_nothing_more_to_say(
        self, v1: V1, finished: list[dict[str, Any]]
    ) -> None:
        socket = connect(v1)
        socket.resume(finished[0]["stream"], finished[-1]["seq"])
        socket.pong()

    def test_keeps_nothing_of_its_request(self, v1: V1) -> None:
        socket, (begun, _) = begin(v1, "one")
        found = live.get(begun["stream"])
        assert found is not None
        run = weakref.ref(found.run)

        socket.cancel()
        socket.rest()

        assert eventually(lambda: gc.collect() >= 0 and run() is None)
        assert live.get(begun["stream"]) is found

    def test_is_forgotten_after_its_time(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "KEPT_SECONDS", 0.2)
        socket = connect(v1)
        socket.start()
        stream = socket.rest()[0]["stream"]
        assert eventually(lambda: live.get(stream) is None)

        socket.resume(stream)

        error = socket.refusal()
        assert (error["code"], error["param"]) == ("stream_not_found", "stream")

    def test_goes_before_its_time_where_memory_is_short_the_oldest_first(
        self, v1: V1, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        v1.upstream.streams(["x" * 1000])
        monkeypatch.setattr(live, "KEPT_BYTES", 5000)
        socket = connect(v1)
        streams = []
        for _ in range(8):
            socket.start()
            streams.append(socket.rest()[0]["stream"])
        socket.pong()

        kept = [live.get(stream) is not None for stream in streams]
        assert kept == sorted(kept)  # the newest
        assert 1 <= kept.count(True) <= 4


class TestWhatCannotBeResumed:
    def refused(self, socket: Socket, stream: str, last_seq: int = -1) -> dict[str, Any]:
        socket.resume(stream, last_seq)
        frame = socket.hear()
        assert (frame["type"], frame["stream"], frame["resumed"]) == ("error", None, stream)
        return shared.told(frame)

    def test_is_told_with_the_streams_name(self, v1: V1) -> None:
        for stream in ("0" * 32, "", "../etc", "ё" * 100, "*"):
            assert self.refused(connect(v1), stream)["code"] == "stream_not_found"

    def test_somebody_elses_stream_is_told_as_one_that_never_was(self, v1: V1) -> None:
        _, (begun, _) = begin(v1, "one")
        never = self.refused(connect(v1), "0" * 32)
        _, colleague = make_key(v1.project, "colleague")
        _, stranger = make_key(make_project("other"), "stranger")

        for key in (colleague, stranger):
            assert self.refused(connect(v1, key), begun["stream"]) == never
        ada = make_staff()
        v1.project.members.add(ada)
        person = Socket(v1.hub, {"Cookie": cookie(ada), "Origin": v1.hub.url})
        v1.during.callback(person.leave)
        assert self.refused(person, begun["stream"]) == never

    def test_nor_can_it_be_cancelled_by_them(self, v1: V1) -> None:
        mine, (begun, _) = begin(v1, "one")
        _, colleague = make_key(v1.project, "colleague")
        other = connect(v1, colleague)

        other.say("cancel", stream=begun["stream"])
        other.pong()

        assert not v1.upstream.requests[0].wait_gone(0.2)
        mine.cancel()
        assert mine.rest()[-1]["type"] == "cancelled"

    def test_the_same_key_by_a_ticket_is_the_same_caller(self, v1: V1) -> None:
        _, (begun, _) = begin(v1, "one")
        second = Socket(v1.hub, subprotocols=[f"llmhub.ticket.{ticket(v1)}"])
        v1.during.callback(second.leave)

        second.resume(begun["stream"], 0)

        assert second.hear()["content"] == "one"

    def test_a_frame_that_never_was_is_refused(self, v1: V1) -> None:
        _, (begun, _) = begin(v1, "one")
        error = self.refused(connect(v1), begun["stream"], 2)
        assert (error["code"], error["param"]) == ("invalid_value", "last_seq")

    @pytest.mark.parametrize("last_seq", [-2, "1", 1.5, None, True])
    def test_a_frame_must_be_named_by_its_number(self, v1: V1, last_seq: Any) -> None:
        _, (begun, _) = begin(v1, "one")
        error = self.refused(connect(v1), begun["stream"], last_seq)
        assert (error["code"], error["param"]) == ("invalid_value", "last_seq")

    def test_what_is_not_kept_that_far_back_is_told_and_what_is_kept_still_comes(
        self, v1: V1, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live_stream, "KEPT_BYTES", 2000)
        v1.upstream.streams(["x" * 100] * 50)
        socket = connect(v1)
        socket.start()
        frames = socket.rest()
        stream = frames[0]["stream"]

        assert self.refused(connect(v1), stream)["code"] == "stream_lost"

        socket.resume(stream, len(frames) - 3)
        assert socket.rest() == frames[-2:]
