"""Pages that do not read: their upstream waits, memory does not grow, others do not notice, they are cut."""

import time
from typing import Any

import pytest
from pytest_django import Settings

from completions import keys, revocation, run, sockets
from completions.models import State
from completions.sockets import Place
from tests.fakes import USAGE, Received, Step, chunk, chunked, completion, response, sse, stream_head
from tests.surfaces import ws as shared
from tests.surfaces.test_v1_slow_readers import is_still, peers
from tests.surfaces.v1 import DONE, MIB, PIECES, PROMPT, V1, cost, peak_bytes
from tests.surfaces.ws import Socket, connect, is_gapless, text_of
from tests.waiting import eventually

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left

PIECE = "word " * 2000
SMALL = 4096  # bytes
TORRENT = 5000  # pieces


@pytest.fixture
def torrent(v1: V1, settings: Settings) -> None:
    """The model called as `user` "much" says PIECE as fast as it is taken; else it answers as ever."""
    settings.LLMHUB_STREAM_GRACE_SECONDS = 0
    piece = chunked(sse(chunk({"content": PIECE})))
    end = [chunked(sse(event)) for event in (chunk({}, "stop"), chunk(None, usage=USAGE), DONE)]

    def script(request: Received) -> list[Step]:
        if not request.body.get("stream"):
            return [response(200, completion())]
        if request.body.get("user") == "much":
            return [stream_head(), *[piece] * TORRENT, *end, chunked(b"")]
        pieces = [chunked(sse(chunk({"content": text}))) for text in PIECES]
        return [stream_head(), *pieces, *end, chunked(b"")]

    v1.upstream.scripts(script)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds after which a reader that takes nothing is cut."""
    monkeypatch.setattr(sockets, "SLOW_SECONDS", 0.4)
    monkeypatch.setattr(sockets, "CUT_SECONDS", 0.1)
    return 0.4


def stall(v1: V1, **options: Any) -> Socket:
    """A socket that has asked for much, and reads nothing."""
    socket = connect(v1, buffer=SMALL, **options)
    socket.start("much", user="much")
    assert eventually(lambda: is_still(v1))
    return socket


@pytest.mark.usefixtures("torrent")
class TestOneWhoReadsNothing:
    def test_makes_the_upstream_wait_and_memory_does_not_grow(self, v1: V1) -> None:
        before = peak_bytes()

        stall(v1)

        assert v1.upstream.sent < 24 * MIB  # of 50; kernels keep some too
        assert peak_bytes() - before < 32 * MIB

    def test_does_not_hold_up_others(self, v1: V1) -> None:
        stall(v1)
        began = time.monotonic()

        for _ in range(10):
            socket = connect(v1)
            socket.start()
            assert text_of(socket.rest()) == "".join(PIECES)

        assert time.monotonic() - began < 8

    def test_is_cut(self, v1: V1, impatient: float) -> None:
        v1.set(v1.api_key, concurrent_calls=1)
        socket = connect(v1, buffer=SMALL)
        address = socket.connection.getsockname()
        socket.start("much", user="much")
        assert eventually(lambda: address in peers())

        assert v1.upstream.wait_for().wait_gone(5)

        row = v1.row()
        assert (row.state, row.prompt_tokens, row.usage_source) == (State.CLIENT_SLOW, PROMPT, "counted")
        assert row.cost_nano_usd == cost(PROMPT, row.completion_tokens or 0)
        assert (row.completion_tokens or 0) > 2000
        assert eventually(lambda: address not in peers() and not Place.taken)
        assert v1.chat().status_code == 200  # the key's only slot is free

    def test_may_come_back_within_the_grace_and_read_on(
        self, v1: V1, impatient: float, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.LLMHUB_STREAM_GRACE_SECONDS = 30
        monkeypatch.setattr(f"{__name__}.TORRENT", 400)  # as much as is kept
        socket = connect(v1, buffer=SMALL)
        socket.start("much", user="much")
        begun = socket.hear()
        assert eventually(lambda: not Place.taken)

        other = connect(v1)
        other.resume(begun["stream"], 0)

        frames = [begun, *other.rest("much")]
        assert is_gapless(frames)
        assert text_of(frames) == PIECE * 400
        assert v1.row().state == State.OK

    def test_is_told_why_if_it_reads_on_in_time(self, v1: V1, impatient: float, monkeypatch: Any) -> None:
        monkeypatch.setattr(sockets, "CUT_SECONDS", 5.0)
        socket = stall(v1)
        time.sleep(impatient + 0.3)

        assert socket.closed() == (4408, "The reader took nothing for a minute.")

    def test_is_cut_though_it_goes_on_talking(self, v1: V1, impatient: float) -> None:
        """Neither new streams nor what it is answered to are a sign that it reads."""
        socket = stall(v1)
        began = time.monotonic()
        number = 0
        while Place.taken and time.monotonic() - began < 4:
            number += 1
            socket.say("ping")
            socket.start(f"c{number}", user="much")
            time.sleep(0.05)
        assert time.monotonic() - began < 2.5

    def test_is_left_by_its_call_too_if_the_socket_is_not_cut(
        self, v1: V1, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run, "SLOW_SECONDS", 0.3)
        stall(v1)

        assert v1.upstream.requests[0].wait_gone(3)

        assert v1.row().state == State.CLIENT_SLOW

    def test_loses_its_socket_when_its_key_is_revoked(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        """It hears of no close: its connection is broken."""
        monkeypatch.setattr(sockets, "CLOSE_SECONDS", 0.2)
        monkeypatch.setattr(revocation, "LOOK_SECONDS", 0.1)
        stall(v1)

        keys.revoke(v1.api_key)

        assert eventually(lambda: not Place.taken, seconds=5)
        assert v1.row().state == State.CANCELLED

    def test_that_asked_for_many_streams_costs_a_bounded_memory(self, v1: V1) -> None:
        socket = connect(v1, buffer=SMALL)
        before = peak_bytes()
        for number in range(4):
            socket.start(f"c{number}", user="much")
        v1.upstream.wait_for(4)

        assert eventually(lambda: is_still(v1), seconds=8)

        assert peak_bytes() - before < 4 * 12 * MIB


@pytest.mark.usefixtures("torrent")
def test_one_who_reads_slowly_but_reads_gets_everything(
    v1: V1, impatient: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.TORRENT", 1000)
    socket = connect(v1, buffer=64 << 10)
    socket.start("much", user="much")
    frames = [socket.hear()]
    while frames[-1]["type"] != "done":
        frames.append(socket.hear())
        if frames[-1]["seq"] % 50 == 0:
            time.sleep(impatient / 4)

    assert text_of(frames) == PIECE * 1000
    assert is_gapless(frames)
    row = v1.row()
    assert (row.state, row.cost_nano_usd) == (State.OK, cost(9, 3))


@pytest.mark.usefixtures("torrent")
def test_one_stream_of_a_socket_waits_for_the_other(v1: V1) -> None:
    """They share a connection: a page that wants to stop one cancels it."""
    socket = stall(v1)
    socket.start("few")

    socket.cancel("much")

    frames = socket.rest("few")
    assert text_of(frames) == "".join(PIECES)
    assert frames[-1]["type"] == "done"
