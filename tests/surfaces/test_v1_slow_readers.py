"""Callers who do not read: their upstream waits, memory does not grow, and in the end they are left."""

import http.client
import os
import socket
import time
from typing import Any

import pytest

from completions import run
from completions.models import State
from completions.streams import AHEAD_CHUNKS
from tests.fakes import USAGE, Received, Step, chunk, chunked, completion, response, sse, stream_head
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import DONE, MIB, PROMPT, V1, Caller, cost, peak_bytes, text_of
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

PIECE = "word " * 2000
SMALL = 4096  # bytes


def torrent(v1: V1, count: int) -> None:
    """Streams are `count` pieces of 10 kB as fast as they are taken; whole answers are as ever."""
    piece = chunked(sse(chunk({"content": PIECE})))
    end = [chunked(sse(event)) for event in (chunk({}, "stop"), chunk(None, usage=USAGE), DONE)]

    def script(request: Received) -> list[Step]:
        if not request.body.get("stream"):
            return [response(200, completion())]
        return [stream_head(), *[piece] * count, *end, chunked(b"")]

    v1.upstream.scripts(script)


def is_still(v1: V1) -> bool:
    """Whether the upstream can send no more."""
    before = v1.upstream.sent
    time.sleep(0.1)
    return v1.upstream.sent == before > 0


def test_the_upstream_waits_for_one_who_reads_nothing(v1: V1) -> None:
    torrent(v1, 5000)
    before = peak_bytes()
    caller = Caller(v1, buffer=SMALL)

    assert eventually(lambda: is_still(v1))

    assert v1.upstream.sent < 16 * MIB
    assert peak_bytes() - before < 32 * MIB
    caller.leave()
    assert v1.upstream.requests[0].wait_gone(1)
    assert v1.row().state == State.CLIENT_GONE


def test_others_do_not_notice(v1: V1) -> None:
    torrent(v1, 5000)
    Caller(v1, buffer=SMALL)
    assert eventually(lambda: is_still(v1))

    began = time.monotonic()
    for _ in range(10):
        assert v1.chat().status_code == 200
    assert time.monotonic() - began < 5


def test_one_who_reads_nothing_for_long_is_left(v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SLOW_SECONDS", 0.3)
    v1.set(v1.api_key, concurrent_calls=1)
    torrent(v1, 5000)
    Caller(v1, buffer=SMALL)

    assert v1.upstream.wait_for().wait_gone(5)

    row = v1.row()
    assert row.state == State.CLIENT_SLOW
    assert (row.prompt_tokens, row.usage_source) == (PROMPT, "counted")
    assert (row.completion_tokens or 0) > 2000
    assert row.cost_nano_usd == cost(PROMPT, row.completion_tokens or 0)
    assert v1.chat().status_code == 200  # the key's only slot is free


def test_the_connection_of_one_who_is_left_is_closed(v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SLOW_SECONDS", 0.3)
    torrent(v1, 5000)
    address = Caller(v1, buffer=SMALL).connection.sock.getsockname()
    assert eventually(lambda: address in peers())

    assert v1.upstream.wait_for().wait_gone(5)

    assert eventually(lambda: address not in peers())


def test_so_it_is_where_the_answer_was_whole_by_then(v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SLOW_SECONDS", 0.3)
    v1.upstream.streams([PIECE * 10] * (AHEAD_CHUNKS - 10))  # the pump need not wait for who reads
    address = Caller(v1, buffer=SMALL).connection.sock.getsockname()
    assert eventually(lambda: address in peers())

    assert v1.upstream.wait_for()
    assert v1.row().state == State.OK

    assert eventually(lambda: address not in peers())


def test_one_who_waits_for_a_slow_upstream_is_not_slow(v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SLOW_SECONDS", 0.1)
    v1.upstream.streams(["one", " two"], delay=0.15)

    assert text_of(v1.stream()) == "one two"
    assert v1.row().state == State.OK


def peers() -> set[Any]:
    """Whom this process, the hub in it, is connected to."""
    found = set()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            one = socket.socket(fileno=int(name))
        except OSError:  # a file, or closed by now
            continue
        try:
            found.add(one.getpeername())
        except OSError:  # not connected
            pass
        finally:
            one.detach()
    return found


def test_one_who_is_left_and_reads_on_is_told_and_never_done(v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SLOW_SECONDS", 0.3)
    torrent(v1, 5000)
    caller = Caller(v1)
    assert v1.upstream.wait_for().wait_gone(5)

    frames: list[Any] = []
    try:
        frames += iter(caller.frame, None)
    except (OSError, http.client.HTTPException):  # the connection was cut, which says it as well
        pass

    assert DONE not in frames
    assert v1.row().state == State.CLIENT_SLOW


def test_one_who_reads_slowly_but_reads_gets_everything(v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SLOW_SECONDS", 1.0)
    torrent(v1, 1500)
    caller = Caller(v1, buffer=64 << 10)
    assert eventually(lambda: is_still(v1))

    frames: list[Any] = []
    for number, frame in enumerate(iter(caller.frame, None)):
        frames.append(frame)
        if number % 100 == 0:
            time.sleep(0.05)

    assert frames[-1] == DONE
    assert text_of(frames) == PIECE * 1500
    row = v1.row()
    assert (row.state, row.cost_nano_usd) == (State.OK, cost(9, 3))
