"""What a connection may send before its request is whole, and how long that may take."""

import json
import select
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from llmhub import protocol
from llmhub.protocol import JOINED_BYTES, Joining
from tests.conftest import LiveHub, running_hub

HEAD = b"GET /healthz HTTP/1.1\r\nHost: hub\r\n"
SECONDS = 0.5


@pytest.fixture(scope="module")
def hub(django_db_setup: None) -> Iterator[LiveHub]:
    with pytest.MonkeyPatch.context() as patched, running_hub(lifespan="off") as running:
        for name in ("HEAD_SECONDS", "BODY_SECONDS"):
            patched.setattr(protocol, name, SECONDS)
        patched.setattr(protocol, "LOOK_SECONDS", SECONDS / 4)
        yield running


@pytest.fixture
def connection(hub: LiveHub) -> Iterator[socket.socket]:
    with socket.create_connection((hub.host, hub.port), timeout=10) as connected:
        yield connected


def rest(connection: socket.socket) -> bytes:
    """All that comes until the hub closes the connection."""
    came = b""
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            return came
        if not part:
            return came
        came += part


def status_and_error(answer: bytes) -> tuple[int, dict[str, str]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def test_a_request_is_answered(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Connection: close\r\n\r\n")
    assert rest(connection).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("line", [b"a" * 1024, b"x: " + b"y" * 1019 + b"\r\n"], ids=["value", "fields"])
def test_a_head_without_end_is_refused(
    connection: socket.socket, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 30.0)
    connection.sendall(HEAD + b"y: ")
    sent = 0
    while not select.select([connection], [], [], 0.01)[0]:
        assert sent < 1 << 20, "a megabyte of it was taken"
        connection.sendall(line)
        sent += len(line)

    if answer := rest(connection):  # else the last line met a closed connection, whose reset takes the answer
        status, error = status_and_error(answer)
        assert (status, error["message"]) == (431, "The headers are larger than 64 KiB.")


def test_many_cookies_are_no_endless_head(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Cookie: " + b"a" * 40_000 + b"\r\nConnection: close\r\n\r\n")
    assert rest(connection).startswith(b"HTTP/1.1 200 OK")


def test_half_a_head_is_given_up(connection: socket.socket) -> None:
    connection.sendall(HEAD)
    status, error = status_and_error(rest(connection))
    assert (status, error["message"]) == (408, f"No whole request came within {SECONDS:g} s.")


def test_half_a_second_head_is_given_up_too(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"\r\n" + HEAD)
    first, _, second = rest(connection).partition(b"HTTP/1.1 408")
    assert first.startswith(b"HTTP/1.1 200 OK")
    assert second


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(connection: socket.socket) -> None:
    assert rest(connection) == b""


def test_half_a_body_is_given_up(connection: socket.socket) -> None:
    connection.sendall(b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
    assert rest(connection) == b""


def test_a_kept_connection_is_not(connection: socket.socket) -> None:
    for _ in range(3):
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        connection.settimeout(2 * SECONDS)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)


def test_nonsense_is_refused_in_json(connection: socket.socket) -> None:
    connection.sendall(b"nonsense\r\n\r\n")
    status, error = status_and_error(rest(connection))
    assert (status, error["message"]) == (400, "Invalid HTTP request received.")


def test_nonsense_in_a_body_is_refused(connection: socket.socket) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head + b"no size\r\n")
    status, _ = status_and_error(rest(connection))
    assert status == 400


def test_nonsense_after_a_request_is_no_part_of_its_answer(connection: socket.socket) -> None:
    """It would be taken for the answer, or for more of it."""
    connection.sendall(HEAD + b"\r\nnonsense\r\n\r\n")
    assert b"400" not in rest(connection)


def test_a_head_without_a_body_is_sent(connection: socket.socket) -> None:
    connection.sendall(HEAD.replace(b"GET", b"HEAD") + b"Connection: close\r\n\r\n")
    answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\n")


class TestJoining:
    """What one system call each brings to the connection."""

    def joining(self, **facts: Any) -> tuple[Any, Any, list[bytes]]:
        written: list[bytes] = []
        cycle = SimpleNamespace(response_started=True, expected_content_length=0, chunked_encoding=False)
        cycle.transport = SimpleNamespace(write=written.append, is_closing=lambda: False)
        vars(cycle).update(facts)
        made: Any = Joining(cycle)  # type: ignore[arg-type]
        return made, cycle, written

    def test_a_body_of_known_length_comes_with_its_head(self) -> None:
        to, _, written = self.joining(expected_content_length=8)
        for part in (b"head ", b"body", b"rest"):
            to.write(part)
        assert written == [b"head body", b"rest"]
        assert not to.is_closing()

    @pytest.mark.parametrize("facts", [{"chunked_encoding": True, "expected_content_length": 3}, {}])
    def test_the_head_of_another_waits_for_nothing(self, facts: dict[str, Any]) -> None:
        to, _, written = self.joining(**facts)
        to.write(b"head")
        assert written == [b"head"]

    def test_a_large_body_is_not_copied(self) -> None:
        body = b"x" * (JOINED_BYTES + 1)
        to, _, written = self.joining(expected_content_length=len(body))
        to.write(b"head")
        to.write(body)
        assert written == [b"head", body]
        assert written[1] is body

    def test_that_a_request_may_go_on_is_said_at_once(self) -> None:
        to, cycle, written = self.joining(response_started=False, expected_content_length=4)
        to.write(b"continue")
        cycle.response_started = True
        to.write(b"head")
        to.write(b"body")
        assert written == [b"continue", b"headbody"]
