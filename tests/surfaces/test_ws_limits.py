"""What bounds a websocket: messages, their size and pace, streams, sockets, and silence."""

import json
import time
from typing import Any

import pytest
from pytest_django import Settings

from completions.sockets import Place
from tests.factories import make_key, make_staff
from tests.fakes import End, chunk, chunked, sse, stream_head
from tests.surfaces import ws as shared
from tests.surfaces.v1 import DONE, HELLO, MIB, MODEL, PIECES, V1
from tests.surfaces.ws import Socket, connect, cookie, text_of
from tests.waiting import eventually

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left


def assert_works(socket: Socket, name: str = "c1") -> None:
    socket.start(name)
    assert socket.rest(name)[-1]["type"] == "done"


class TestAMessage:
    def test_that_is_no_object_is_refused_in_words(self, v1: V1) -> None:
        socket = connect(v1)
        for data in (b"", b"{", b"[]", b"null", b'"ping"', b"[" * 5000, b"{'type': 'ping'}"):
            socket.send(data)
            error = socket.refusal()
            assert error["code"] == "invalid_value"
            assert "JSON object" in error["message"]
        assert_works(socket)

    def test_in_bytes_is_refused_in_words(self, v1: V1) -> None:
        socket = connect(v1)
        socket.send(b'{"type":"ping"}', binary=True)
        assert "as text" in socket.refusal()["message"]
        assert_works(socket)

    def test_that_is_no_text_closes_the_socket(self, v1: V1, caplog: pytest.LogCaptureFixture) -> None:
        socket = connect(v1)
        socket.send(b"\xff\xfe")
        assert socket.closed()[0] == 1007
        caplog.clear()  # the server itself says so

    def test_of_an_unknown_type_is_told_the_known_ones(self, v1: V1) -> None:
        socket = connect(v1)
        kinds: list[Any] = ["", "Start", "restart", None, 5, ["start"], {"type": "start"}]
        for kind in kinds:
            socket.send(json.dumps({"type": kind, "id": "c7"}).encode())
            frame = socket.hear()
            error = shared.told(frame)
            assert (frame["id"], error["code"], error["param"]) == ("c7", "invalid_value", "type")
            assert "auth, start, resume, cancel, ping" in error["message"]

    def test_may_hold_fields_that_are_not_known(self, v1: V1) -> None:
        socket = connect(v1)
        socket.say("start", id="c1", request={"model": MODEL, "messages": HELLO}, more={"a": 1}, v=2)
        assert socket.rest()[-1]["type"] == "done"
        socket.say("ping", at=5)
        assert socket.hear() == {"type": "pong"}

    def test_that_starts_a_stream_must_name_it(self, v1: V1) -> None:
        socket = connect(v1)
        names: list[Any] = [None, "", 5, "x" * 65, ["c1"], True]
        for name in names:
            socket.say("start", id=name, request={"model": MODEL, "messages": HELLO})
            assert socket.refusal()["param"] == "id"
        assert v1.upstream.requests == []

    def test_may_name_it_by_any_short_text(self, v1: V1) -> None:
        socket = connect(v1)
        for name in ('"', "\\", "ы" * 64, "\u2028", "<b>", "a b", "\x00"):
            assert_works(socket, name)

    def test_that_starts_a_stream_must_hold_a_request(self, v1: V1) -> None:
        socket = connect(v1)
        requests: list[Any] = [None, [], "x", 5]
        for request in requests:
            socket.say("start", id="c1", request=request)
            assert socket.refusal()["param"] == "request"

    def test_that_cancels_must_name_what(self, v1: V1) -> None:
        socket = connect(v1)
        for name in (None, 5, ["c1"]):
            socket.say("cancel", id=name)
            assert socket.refusal()["param"] == "id"

    def test_of_a_mebibyte_is_taken(self, v1: V1) -> None:
        socket = connect(v1)
        rest = MIB - len(
            json.dumps({"type": "start", "id": "c1", "request": {"model": MODEL, "messages": []}})
        )
        text = "x" * (rest - 40)
        socket.start(messages=[{"role": "user", "content": text}])
        assert socket.rest()[-1]["type"] == "done"
        assert v1.upstream.requests[0].body["messages"][0]["content"] == text

    @pytest.mark.parametrize("size", [MIB + 1, 2 * MIB])
    def test_that_is_larger_closes_the_socket(self, v1: V1, size: int) -> None:
        socket = connect(v1)
        socket.send(b'"' + b"x" * (size - 2) + b'"')
        assert socket.closed()[0] == 1009
        assert eventually(lambda: not Place.taken)

    def test_that_is_larger_does_not_end_the_streams_of_its_socket(self, v1: V1) -> None:
        v1.upstream.streams(PIECES, delay=0.02)
        socket = connect(v1)
        socket.start()
        begun = socket.frames(2)
        socket.send(b"x" * 2 * MIB)
        assert socket.closed()[0] == 1009

        other = connect(v1)
        other.resume(begun[0]["stream"], begun[-1]["seq"])

        assert text_of(begun + other.rest()) == "".join(PIECES)


class TestThePace:
    def test_a_burst_is_taken(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_SOCKET_MESSAGES_PER_SECOND = 5
        socket = connect(v1)
        for _ in range(20):
            socket.pong()

    def test_a_flood_closes_the_socket(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_SOCKET_MESSAGES_PER_SECOND = 5
        socket = connect(v1)
        for _ in range(30):
            socket.say("ping")
        assert socket.closed() == (1008, "Too many messages a second.")

    def test_nonsense_counts_too(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_SOCKET_MESSAGES_PER_SECOND = 1
        socket = connect(v1)
        for _ in range(10):
            socket.send(b"nonsense")
        assert socket.closed()[0] == 1008

    def test_who_waits_may_go_on(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_SOCKET_MESSAGES_PER_SECOND = 20
        socket = connect(v1)
        for _ in range(80):
            socket.say("ping")
        time.sleep(0.3)
        for _ in range(4):
            socket.say("ping")
        assert [socket.hear() for _ in range(84)] == [{"type": "pong"}] * 84

    def test_a_flood_does_not_end_the_streams_of_its_socket(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_SOCKET_MESSAGES_PER_SECOND = 2
        v1.upstream.streams(PIECES, delay=0.02)
        socket = connect(v1)
        socket.start()
        begun = socket.hear()
        for _ in range(20):
            socket.say("ping")
        assert socket.closed()[0] == 1008

        other = connect(v1)
        other.resume(begun["stream"], 0)

        assert text_of(other.rest()) == "".join(PIECES)


class TestStreamsOfASocket:
    def test_are_bounded_and_the_next_is_refused_in_words(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_STREAMS_PER_SOCKET = 3
        v1.upstream.events(chunk({"content": "one"}), end=End.HOLD)
        socket = connect(v1)
        for name in "abc":
            socket.start(name)

        socket.start("d")

        error = socket.refusal()
        assert error["code"] == "rate_limit_exceeded"
        assert "3 streams run on this socket" in error["message"]
        v1.upstream.wait_for(3)
        socket.cancel("b")
        assert socket.rest("b")[-1]["type"] == "cancelled"
        socket.start("d")
        v1.upstream.wait_for(4)

    def test_count_what_is_resumed(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_STREAMS_PER_SOCKET = 1
        _, (begun, _) = shared.begin(v1, "one")
        socket = connect(v1)
        socket.start("other")
        assert socket.hear()["type"] == "started"

        socket.resume(begun["stream"])

        while "resumed" not in (frame := socket.hear()):
            pass
        assert (frame["resumed"], shared.told(frame)["code"]) == (begun["stream"], "rate_limit_exceeded")


class TestSockets:
    def test_of_a_key_are_bounded(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_SOCKETS_PER_KEY = 3
        _, other = make_key(v1.project, "other")
        mine = [connect(v1) for _ in range(3)]

        code, reason = connect(v1).closed()

        assert (code, "3 websockets" in reason) == (4429, True)
        assert_works(connect(v1, other))
        mine[0].close()
        assert eventually(lambda: max(Place.taken.values()) == 2)
        assert_works(connect(v1))

    def test_of_a_person_are_bounded(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_SOCKETS_PER_USER = 2
        ada = make_staff()
        v1.project.members.add(ada)
        v1.during.callback(ada.delete)
        headers = {"Cookie": cookie(ada), "Origin": v1.hub.url}

        sockets = [Socket(v1.hub, headers) for _ in range(3)]

        for socket in sockets:
            v1.during.callback(socket.leave)
        assert sockets[2].closed()[0] == 4429
        sockets[0].pong()

    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    def test_that_are_gone_count_no_longer(self, v1: V1, settings: Settings, reset: bool) -> None:
        settings.LLMHUB_SOCKETS_PER_KEY = 1
        for _ in range(3):
            socket = connect(v1)
            socket.pong()
            socket.leave(reset=reset)
            assert eventually(lambda: not Place.taken)

    def test_that_are_gone_while_they_are_answered_count_no_longer(self, v1: V1, settings: Settings) -> None:
        """The hub finds nobody there in the middle of a message."""
        settings.LLMHUB_SOCKET_MESSAGES_PER_SECOND = 10_000
        for _ in range(20):
            socket = connect(v1)
            for _ in range(50):
                socket.say("ping")
            socket.leave(reset=True)
        assert eventually(lambda: not Place.taken)


class TestSilence:
    @pytest.fixture
    def idle(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> float:
        """Seconds of silence that end a socket."""
        monkeypatch.setattr("completions.sockets.AUTH_SECONDS", 0.05)
        settings.LLMHUB_SOCKET_IDLE_SECONDS = 0.3
        return 0.3

    def test_of_a_socket_that_nobody_uses_ends_it(self, v1: V1, idle: float) -> None:
        began = time.monotonic()

        code, reason = connect(v1).closed()

        assert (code, reason) == (4408, "Nothing was asked for a long time.")
        assert idle < time.monotonic() - began < 2

    def test_pings_keep_it_open(self, v1: V1, settings: Settings) -> None:
        settings.LLMHUB_SOCKET_IDLE_SECONDS = 1.2  # a slow machine may be late with a ping
        socket = connect(v1)
        for _ in range(5):
            time.sleep(0.3)
            socket.pong()

    def test_a_stream_that_says_nothing_for_long_keeps_it_open(self, v1: V1, idle: float) -> None:
        events: list[Any] = [chunk({"content": "one"}), chunk({}, "stop"), DONE]
        v1.upstream.scripts(lambda _: [stream_head(), 2 * idle, *(chunked(sse(one)) for one in events)])
        socket = connect(v1)
        socket.start()
        assert socket.rest()[-1]["type"] == "done"

    def test_begins_anew_after_an_answer(self, v1: V1, idle: float) -> None:
        v1.upstream.streams(PIECES[:3], delay=idle / 5)
        socket = connect(v1)
        socket.start()
        socket.rest()
        ended = time.monotonic()

        assert socket.closed()[0] == 4408
        assert time.monotonic() - ended > idle * 0.8
