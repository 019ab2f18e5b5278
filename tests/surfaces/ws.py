"""What tests of the websocket share: a hub as it is served, and a client on a raw socket.

The client is the `websockets` library's protocol on a socket of the test's own: it reads nothing unless it is
asked to, so that a test may stop reading, break the connection, or read up to any frame.
"""

import gc
import json
import logging
import socket
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.test import Client
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from completions import live
from completions.management.commands.serve import WEBSOCKETS
from completions.sockets import Place
from tests.conftest import LiveHub, running_hub
from tests.fakes import End, chunk
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import HELLO, MODEL, PATIENCE, V1, checked
from tests.waiting import eventually

PATH, TICKETS = "/ws/completions/", "/api/ws-tickets/"
LAST = ("done", "error", "cancelled")  # types of a stream's last frame
ABNORMAL = 1006  # the connection ended without a close frame
Message = dict[str, Any]
UNHEARD = logging.getLogger("tests.websockets")  # what the hub logs is looked at, not what its callers do
UNHEARD.setLevel(logging.CRITICAL)


class Closed(Exception):
    """The websocket has ended."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code, self.reason = code, reason


class Socket:
    """One websocket. Frames are JSON objects, as the hub sent them."""

    def __init__(
        self,
        hub: LiveHub,
        headers: Mapping[str, str] | None = None,
        *,
        subprotocols: Sequence[str] = (),
        query: str = "",
        buffer: int = 0,
    ) -> None:
        self.connection = socket.socket()
        if buffer:  # bytes that its machine takes before it reads them
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.connection.settimeout(PATIENCE)
        self.connection.connect((hub.host, hub.port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._offered = [Subprotocol(name) for name in subprotocols] or None
        uri = parse_uri(f"ws://{hub.host}:{hub.port}{PATH}{query}")
        self._protocol = ClientProtocol(uri, subprotocols=self._offered, max_size=None, logger=UNHEARD)
        self._texts: deque[str] = deque()
        self.accepted: dict[str, str] = {}  # streams by the caller's id
        self._answered = self._ended = False
        self._shake_hands(headers or {})

    def _shake_hands(self, headers: Mapping[str, str]) -> None:
        request = self._protocol.connect()
        for name, value in headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._flush()
        while not self._answered and not self._ended:
            self._take()
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc

    @property
    def subprotocol(self) -> str | None:
        """The one that the hub chose."""
        return self._protocol.subprotocol

    # --- what it says

    def say(self, kind: str, **fields: Any) -> None:
        self.send(json.dumps({"type": kind, **fields}).encode())

    def send(self, data: bytes, *, binary: bool = False) -> None:
        """One message, whatever it is."""
        (self._protocol.send_binary if binary else self._protocol.send_text)(data)
        self._flush()

    def start(self, name: str = "c1", **fields: Any) -> None:
        self.say("start", id=name, request={"model": MODEL, "messages": HELLO} | fields)

    def resume(self, stream: str, last_seq: int = -1, **fields: Any) -> None:
        self.say("resume", stream=stream, last_seq=last_seq, **fields)

    def cancel(self, name: str = "c1") -> None:
        self.say("cancel", id=name)

    # --- what it hears

    def hear(self) -> Message:
        """The next frame, waited for. Raises Closed at the end. What was accepted is noted, and left out."""
        while True:
            if not self.is_open():
                raise Closed(self._protocol.close_code or ABNORMAL, self._protocol.close_reason or "")
            found: Message = json.loads(self._texts.popleft())
            if found["type"] != "accepted":
                return found
            self.accepted[found["id"]] = found["stream"]

    def stream_of(self, name: str) -> str:
        """Which stream a call has become, waited for. Nothing else may come before."""
        while name not in self.accepted:
            assert self.is_open()
            accepted = json.loads(self._texts.popleft())
            assert accepted["type"] == "accepted"
            self.accepted[accepted["id"]] = accepted["stream"]
        return self.accepted[name]

    def frames(self, count: int) -> list[Message]:
        return [self.hear() for _ in range(count)]

    def upto(self, count: int) -> list[Message]:
        """So many frames, or fewer up to the last: pieces that came at once are one frame."""
        frames = [self.hear()]
        while len(frames) < count and frames[-1]["type"] not in LAST:
            frames.append(self.hear())
        return frames

    def rest(self, name: str = "c1") -> list[Message]:
        """Every frame up to the last one of the caller's stream `name`; those of others are left out."""
        frames: list[Message] = []
        while not frames or frames[-1]["type"] not in LAST:
            frame = self.hear()
            frames += [frame] if frame.get("id") == name else []
        return frames

    def refusal(self) -> Message:
        """The error of the next frame that is no stream's; frames of streams are left out."""
        while (frame := self.hear()).get("stream"):
            pass
        assert (frame["type"], frame["stream"], frame["seq"]) == ("error", None, 0), frame
        return told(frame)

    def pong(self) -> None:
        """What was said before is done with: the hub looks at one message after the other."""
        self.say("ping")
        assert self.hear() == {"type": "pong"}

    def is_open(self) -> bool:
        """Whether there is a next frame, waited for; it is kept."""
        while not self._texts and not self._ended:
            self._take()
        return bool(self._texts)

    def closed(self) -> tuple[int, str]:
        """How it was closed, waited for; frames that come before are left out."""
        try:
            while True:
                self.hear()
        except Closed as end:
            return end.code, end.reason

    # --- how it ends

    def close(self) -> None:
        """As a page does it: with a close frame, and the hub's waited for."""
        self._protocol.send_close(1000)
        self._flush()
        self.closed()
        self.connection.close()

    def leave(self, *, reset: bool = False) -> None:
        """Without a word."""
        if reset and self.connection.fileno() >= 0:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    # --- the wire

    def _take(self) -> None:
        """What comes next."""
        try:
            data = self.connection.recv(1 << 16)
        except ConnectionError:  # reset
            data = b""
        if data:
            self._protocol.receive_data(data)
        else:
            self._ended = True
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._answered = True
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                assert event.fin
                self._texts.append(bytes(event.data).decode())
        self._flush()

    def _flush(self) -> None:
        try:
            for data in self._protocol.data_to_send():
                if data:
                    self.connection.sendall(data)
        except ConnectionError:  # what was received before can still be read
            pass


def connect(v1: V1, key: str = "", *, hub: LiveHub | None = None, **options: Any) -> Socket:
    """A websocket with the key of `v1`, or another, in its header. It ends with the test."""
    made = Socket(hub or v1.hub, {"Authorization": f"Bearer {key or v1.key}"}, **options)
    v1.during.callback(made.leave)
    return made


def begin(v1: V1, *pieces: str, name: str = "c1") -> tuple[Socket, list[Message]]:
    """A stream that goes on for as long as its reader wants, and the frames of `pieces`, which were read."""
    v1.upstream.events(*(chunk({"content": piece}) for piece in pieces), end=End.HOLD)
    socket = connect(v1)
    socket.start(name)
    frames = [socket.hear()]
    while text_of(frames) != "".join(pieces):
        frames.append(socket.hear())
    return socket, frames


def ticket(v1: V1, key: str = "") -> str:
    """A ticket of a key."""
    answer = v1.post(TICKETS, None, key=key or None)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["ticket"])


def cookie(user: Any) -> str:
    """The Cookie header of a person who is signed in."""
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return f"sessionid={client.cookies['sessionid'].value}"


def told(frame: Message) -> Message:
    """The error of a frame, in the shape of `/v1`; beside it only how long to wait."""
    error = dict(frame["error"])
    wait = error.pop("retry_after", 1)
    assert isinstance(wait, int)
    assert 1 <= wait <= 60
    return checked(error)


def text_of(frames: Sequence[Message]) -> str:
    return "".join(frame.get("content", "") for frame in frames if frame["type"] == "delta")


def is_gapless(frames: Sequence[Message], first: int = 0) -> bool:
    """Whether frames of one stream are numbered from `first` on, one by one."""
    names = {(frame["id"], frame["stream"]) for frame in frames}
    return len(names) == 1 and [frame["seq"] for frame in frames] == [*range(first, first + len(frames))]


# --- fixtures: a module of tests takes them by name, beside those of tests.surfaces.v1


@pytest.fixture(scope="module")
def hub(transactional_db: None) -> Iterator[LiveHub]:
    """One hub for all tests of a module, with websockets as `manage.py serve` has them."""
    with running_hub(**WEBSOCKETS) as hub, frozen_heap():
        yield hub


@contextmanager
def frozen_heap() -> Iterator[None]:
    """What is there by now need not be looked at whenever garbage is collected."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left(hub: LiveHub, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No socket is counted that is gone, and nothing went wrong unseen."""
    yield
    live.forget()
    assert eventually(lambda: not Place.taken), Place.taken
    gc.collect()  # a task that failed unseen says so when it is collected
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert [record.getMessage() + str(record.exc_text or "") for record in errors] == []


v1 = shared.v1
transactional_db = shared.transactional_db
