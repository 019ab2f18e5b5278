"""A person's websocket and calls depend on the session that made them: they end with it, within seconds."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.utils import timezone

from completions import revocation, types
from completions.models import State
from tests.factories import make_project, make_staff
from tests.fakes import End, chunk
from tests.surfaces import ws as shared
from tests.surfaces.cached import TEXT, waits
from tests.surfaces.v1 import HELLO, MODEL, V1
from tests.surfaces.ws import PATH, TICKETS, Closed, Message, Socket, cookie, text_of, told
from tests.waiting import eventually

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left

SECONDS = 5.0  # within which calls of an ended session end
TOKEN = "x" * 32
ENDED = "Your session has ended. Sign in again."
INACTIVE = "This account is not active any more."
NO_MEMBER = "You may not use this project any more."


class Person:
    """Somebody who is signed in, in one browser."""

    def __init__(self, v1: V1, user: Any) -> None:
        self.v1, self.user = v1, user
        self.cookie = cookie(user)

    @property
    def session_key(self) -> str:
        return self.cookie.removeprefix("sessionid=")

    @property
    def headers(self) -> dict[str, str]:
        """Those of a request with the session."""
        return {
            "Cookie": f"{self.cookie}; csrftoken={TOKEN}",
            "X-CSRFToken": TOKEN,
            "Content-Type": "application/json",
        }

    def by_cookie(self) -> Socket:
        return self._socket({"Cookie": self.cookie, "Origin": self.v1.hub.url})

    def by_ticket(self) -> Socket:
        socket = self._socket({})
        socket.say("auth", ticket=self.ticket())
        return socket

    def ticket(self) -> str:
        answer = requests.post(self.v1.hub.url + TICKETS, headers=self.headers, timeout=10)
        return str(answer.json()["ticket"])

    def _socket(self, headers: dict[str, str]) -> Socket:
        made = Socket(self.v1.hub, headers)
        self.v1.during.callback(made.leave)
        return made


@pytest.fixture
def ada(v1: V1) -> Person:
    """A member of the project."""
    user = make_staff()
    v1.project.members.add(user)
    v1.during.callback(user.delete)
    return Person(v1, user)


@pytest.fixture
def held(v1: V1) -> None:
    """Answers begin, and go on for as long as they are read."""
    v1.upstream.events(chunk({"content": "one"}), end=End.HOLD)


@pytest.fixture(params=["by_cookie", "by_ticket"])
def socket(request: pytest.FixtureRequest, ada: Person) -> Socket:
    """An open websocket of the person."""
    made: Socket = getattr(ada, request.param)()
    made.pong()
    return made


def signed_out(ada: Person) -> None:
    client = Client()
    client.cookies["sessionid"] = ada.session_key
    assert client.post("/sign-out/").status_code == 302


def new_password(ada: Person) -> None:
    ada.user.set_password("another password of the suite")
    ada.user.save()


def expired(ada: Person) -> None:
    Session.objects.filter(session_key=ada.session_key).update(expire_date=timezone.now())


def deactivated(ada: Person) -> None:
    ada.v1.set(ada.user, is_active=False)


def deleted(ada: Person) -> None:
    type(ada.user).objects.filter(pk=ada.user.pk).delete()


def another_person(ada: Person) -> None:
    """The session goes on as somebody else's."""
    store, other = SessionStore(ada.session_key), make_staff("eve")
    ada.v1.during.callback(other.delete)
    store["_auth_user_id"], store["_auth_user_hash"] = str(other.pk), other.get_session_auth_hash()
    store.save()


def no_member(ada: Person) -> None:
    ada.v1.set(ada.user, is_superuser=False)
    ada.v1.project.members.remove(ada.user)


def disabled(ada: Person) -> None:
    ada.v1.set(ada.v1.project, enabled=False)


SIGNED_OUT = [
    (signed_out, ENDED),
    (new_password, ENDED),
    (expired, ENDED),
    (another_person, ENDED),
    (deactivated, INACTIVE),
    (deleted, INACTIVE),
]
NOT_IN_PROJECT = [(no_member, NO_MEMBER), (disabled, NO_MEMBER)]
Change = Callable[[Person], None]


def noted_looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whom revocation looks at from now on, look by look."""
    looks: list[Any] = []
    look = revocation._refusals

    def look_noted(people: Any) -> Any:
        looks.append(people)
        return look(people)

    monkeypatch.setattr(revocation, "_refusals", look_noted)
    return looks


def heard_until_closed(socket: Socket) -> tuple[list[Message], int, str]:
    frames: list[Message] = []
    try:
        while True:
            frames.append(socket.hear())
    except Closed as end:
        return frames, end.code, end.reason


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize(("change", "why"), SIGNED_OUT + NOT_IN_PROJECT)
def test_running_streams_end_within_seconds_and_the_socket_with_them(
    v1: V1, ada: Person, socket: Socket, change: Change, why: str
) -> None:
    for name in ("c1", "c2"):
        socket.start(name)
        socket.frames(2)
    began = time.monotonic()

    change(ada)

    frames, code, reason = heard_until_closed(socket)
    assert time.monotonic() - began < SECONDS
    assert (code, reason) == (4401, why)
    assert {told(frame)["code"] for frame in frames} <= {"invalid_api_key"}
    assert all(request.wait_gone(1) for request in v1.upstream.requests)
    assert [(row.state, row.completion_tokens) for row in v1.rows()] == [(State.CANCELLED, 1)] * 2


@pytest.mark.parametrize(("change", "why"), SIGNED_OUT)
def test_nothing_begins_and_nothing_is_read_again_from_then_on(
    v1: V1, ada: Person, socket: Socket, monkeypatch: pytest.MonkeyPatch, change: Change, why: str
) -> None:
    monkeypatch.setattr(revocation._Watcher, "refuse", lambda *_: None)  # who asks need not wait for a look
    again = ada.by_cookie()
    again.pong()
    socket.start()
    stream = socket.rest()[0]["stream"]

    change(ada)

    socket.start("c2")
    assert socket.refusal() == {
        "message": why, "type": "invalid_request_error", "param": None, "code": "invalid_api_key",
    }  # fmt: skip
    assert socket.closed() == (4401, why)
    again.resume(stream)
    frames, code, reason = heard_until_closed(again)
    assert [(frame["type"], frame["stream"], frame["resumed"]) for frame in frames] == [
        ("error", None, stream)
    ]
    assert (code, reason) == (4401, why)
    assert len(v1.upstream.requests) == 1


@pytest.mark.parametrize(("change", "why"), SIGNED_OUT + NOT_IN_PROJECT)
def test_a_ticket_ends_with_the_session_that_made_it(v1: V1, ada: Person, change: Change, why: str) -> None:
    text = ada.ticket()
    change(ada)
    socket = ada._socket({})
    socket.say("auth", ticket=text)
    socket.start()
    assert socket.refusal()["message"] == why
    assert socket.closed()[0] == (4403 if why == NO_MEMBER else 4401)
    assert v1.upstream.requests == []


@pytest.mark.usefixtures("held")
def test_a_stream_that_nobody_reads_any_more_ends_too(v1: V1, ada: Person, socket: Socket) -> None:
    socket.start()
    socket.frames(2)
    socket.leave()

    signed_out(ada)

    assert v1.upstream.requests[0].wait_gone(SECONDS)
    assert v1.row().state == State.CANCELLED


@pytest.mark.usefixtures("held")
def test_other_sessions_of_the_person_and_other_people_go_on(v1: V1, ada: Person) -> None:
    eve = make_staff("eve")
    v1.project.members.add(eve)
    v1.during.callback(eve.delete)
    mine, at_home, theirs = ada.by_cookie(), Person(v1, ada.user).by_cookie(), Person(v1, eve).by_cookie()
    for each in (mine, at_home, theirs):
        each.start()
        each.frames(2)

    signed_out(ada)

    assert mine.closed()[0] == 4401
    for each in (at_home, theirs):
        each.pong()
        each.cancel()
        assert each.rest()[-1]["type"] == "cancelled"


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("is_member", [True, False], ids=["member", "superuser"])
def test_who_may_call_is_left_alone(
    v1: V1, ada: Person, monkeypatch: pytest.MonkeyPatch, is_member: bool
) -> None:
    """Superusers may use any project."""
    monkeypatch.setattr(revocation, "LOOK_SECONDS", 0.05)
    looks = noted_looks(monkeypatch)
    v1.set(ada.user, is_superuser=not is_member)
    if not is_member:
        v1.project.members.remove(ada.user)
        make_project("own", members=(ada.user,))
    headers = {"Cookie": ada.cookie, "Origin": v1.hub.url}
    socket = Socket(v1.hub, headers, query=f"?project={v1.project.slug}")
    v1.during.callback(socket.leave)
    socket.start()
    socket.frames(2)

    assert eventually(lambda: len(looks) > 5)

    socket.pong()


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("change", "why"), [(signed_out, ENDED), (deactivated, INACTIVE)])
def test_a_call_over_http_ends_too(v1: V1, ada: Person, change: Change, why: str, stream: bool) -> None:
    v1.upstream.events(chunk({"content": "one"}), end=End.HOLD) if stream else v1.upstream.hangs("headers")
    body = json.dumps({"model": MODEL, "messages": HELLO, "stream": stream})

    def leave() -> None:
        eventually(lambda: bool(v1.upstream.requests))
        change(ada)

    leaving = threading.Thread(target=leave)
    leaving.start()
    v1.during.callback(leaving.join)
    began = time.monotonic()

    answer = requests.post(f"{v1.hub.url}/api/completions/", body, headers=ada.headers, timeout=10)

    assert time.monotonic() - began < SECONDS + 1
    assert answer.status_code == (200 if stream else 401)
    assert why in answer.text
    assert v1.row().state == State.CANCELLED


def _watched() -> bool:
    return any(any(watcher.runs.values()) for watcher in revocation._watchers._all.values())


class TestWhatItCosts:
    def test_an_idle_socket_is_not_looked_at(
        self, ada: Person, socket: Socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(revocation, "LOOK_SECONDS", 0.05)
        socket.start()
        socket.rest()
        assert eventually(lambda: not _watched())
        looks = noted_looks(monkeypatch)
        time.sleep(0.3)
        assert looks == []

    def test_people_are_looked_at_together(self, v1: V1, django_assert_num_queries: Any) -> None:
        people = []
        for number in range(10):
            user = make_staff(f"p{number}")
            v1.during.callback(user.delete)
            v1.project.members.add(user)
            v1.set(user, is_superuser=False)
            session = Person(v1, user).session_key
            people.append(revocation.Person(user.pk, v1.project.pk, types.Session(session)))
        connection.ensure_connection()
        with django_assert_num_queries(3 + len(people)):
            assert revocation._refusals(people) == {}


def test_the_address_of_the_websocket_answers_in_json_over_http(v1: V1) -> None:
    for method in ("GET", "POST", "HEAD"):
        answer = requests.request(method, v1.hub.url + PATH, timeout=10)
        assert answer.status_code == 426
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["upgrade"] == "websocket"
        assert answer.headers["x-request-id"]
    body = requests.get(v1.hub.url + PATH, timeout=10).json()
    assert body.keys() == {"status_code", "message", "code", "timestamp", "details"}
    assert (body["status_code"], body["code"]) == (426, "UPGRADE_REQUIRED")


def test_who_shares_the_answer_of_one_who_signs_out_gets_all_of_it(v1: V1, ada: Person) -> None:
    """Equal calls are one call to the provider; its end is not the end of the first who asked."""
    eve = make_staff("eve")
    v1.project.members.add(eve)
    v1.during.callback(eve.delete)
    go = waits(v1)
    first, second = ada.by_cookie(), Person(v1, eve).by_cookie()
    first.start(temperature=0)
    first.frames(2)
    second.start(temperature=0)
    frames = second.frames(2)

    deactivated(ada)

    assert first.closed()[0] == 4401
    go.set()
    assert text_of(frames + second.rest()) == TEXT
    assert sorted(row.state for row in v1.rows()) == [State.COALESCED, State.OK]
    assert len(v1.upstream.requests) == 1
