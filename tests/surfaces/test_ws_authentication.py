"""Who may open a websocket: three ways to say who one is, and what is refused with which close code."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import OperationalError
from django.utils import timezone
from pytest_django import Settings

from completions import accounts, keys, revocation, sockets, tickets
from completions.models import State
from providers import database
from tests.factories import make_key, make_project, make_staff
from tests.fakes import End, chunk
from tests.surfaces import ws as shared
from tests.surfaces.v1 import V1
from tests.surfaces.ws import TICKETS, Socket, connect, cookie, ticket
from tests.waiting import eventually

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left

PROTOCOL = "llmhub.v1"


def open_socket(v1: V1, headers: dict[str, str] | None = None, **options: Any) -> Socket:
    made = Socket(v1.hub, headers, **options)
    v1.during.callback(made.leave)
    return made


def with_ticket(v1: V1, text: str) -> Socket:
    return open_socket(v1, subprotocols=[PROTOCOL, f"llmhub.ticket.{text}"])


@pytest.fixture
def ada(v1: V1) -> Any:
    """A person who is a member of the project."""
    person = make_staff()
    v1.project.members.add(person)
    v1.during.callback(person.delete)
    return person


def assert_works(socket: Socket) -> None:
    socket.start()
    assert socket.rest()[-1]["type"] == "done"


class TestAKey:
    @pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
    def test_in_a_header_opens_one(self, v1: V1, header: str) -> None:
        value = f"Bearer {v1.key}" if header == "Authorization" else v1.key
        assert_works(open_socket(v1, {header: value}))
        assert v1.row().api_key == v1.api_key

    def test_needs_no_origin_and_no_certain_one(self, v1: V1) -> None:
        assert_works(open_socket(v1, {"Authorization": f"Bearer {v1.key}", "Origin": "https://else.example"}))

    def test_that_is_wrong_is_refused(self, v1: V1) -> None:
        for wrong in ("x", "sk-x", "é" * 200, "sk-llmhub-aaaaaaaaaaaa-" + "b" * 43):
            code, reason = open_socket(v1, {"X-Api-Key": wrong}).closed()
            assert code == 4401
            assert reason.startswith("Incorrect API key provided")

    def test_that_is_revoked_expired_or_of_a_disabled_project_is_refused(self, v1: V1) -> None:
        keys.revoke(v1.api_key)
        _, expired = make_key(v1.project, "old", expires_at=timezone.now() - timedelta(seconds=1))
        _, disabled = make_key(make_project("off", enabled=False))

        reasons = [connect(v1, key).closed() for key in (v1.key, expired, disabled)]

        assert [code for code, _ in reasons] == [4401] * 3
        assert [reason.rstrip(".").split()[-1] for _, reason in reasons] == ["revoked", "expired", "disabled"]

    def test_in_the_address_is_refused_even_where_it_is_right(self, v1: V1) -> None:
        for name in ("key", "api_key", "token"):
            code, reason = open_socket(v1, query=f"?{name}={v1.key}").closed()
            assert code == 4401
            assert "header" in reason
            assert v1.key[-8:] not in reason


class TestATicket:
    def test_as_a_subprotocol_opens_one_and_is_not_chosen(self, v1: V1) -> None:
        socket = with_ticket(v1, ticket(v1))
        assert socket.subprotocol == PROTOCOL
        assert_works(socket)
        assert v1.row().api_key == v1.api_key

    def test_may_be_the_only_subprotocol(self, v1: V1) -> None:
        assert_works(open_socket(v1, subprotocols=[f"llmhub.ticket.{ticket(v1)}"]))

    def test_in_the_first_frame_opens_one(self, v1: V1) -> None:
        socket = open_socket(v1)
        socket.say("auth", ticket=ticket(v1))
        assert_works(socket)

    def test_of_a_person_counts_as_that_person(self, v1: V1, ada: Any) -> None:
        session = {"Cookie": cookie(ada), "X-CSRFToken": "x" * 32, "Authorization": ""}
        session["Cookie"] += f"; csrftoken={'x' * 32}"
        text = v1.send("POST", TICKETS, headers=session).json()["ticket"]

        assert_works(with_ticket(v1, text))

        row = v1.row()
        assert (row.user_id, row.api_key_id, row.project) == (ada.pk, None, v1.project)

    def test_is_good_once(self, v1: V1) -> None:
        text = ticket(v1)
        first = with_ticket(v1, text)

        second = with_ticket(v1, text)
        assert second.subprotocol == PROTOCOL  # else a browser takes it for no websocket, and never hears why
        assert second.closed()[0] == 4401
        late = open_socket(v1)
        late.say("auth", ticket=text)
        assert late.closed()[0] == 4401
        assert_works(first)

    def test_is_good_once_though_many_try_at_the_same_moment(self, v1: V1) -> None:
        text = ticket(v1)
        sockets = [open_socket(v1) for _ in range(16)]
        for socket in sockets:
            socket.say("auth", ticket=text)
        for socket in sockets:
            socket.say("ping")
        assert [socket.closed()[0] for socket in sockets if not socket.is_open()] == [4401] * 15

    def test_is_redeemed_once_in_a_race_of_threads(self, v1: V1) -> None:
        caller = keys.authenticate(v1.key, surface="ws")
        for _ in range(20):
            text, found = tickets.issue(caller).text, list[Any]()
            barrier = threading.Barrier(8)

            def redeem(text: str = text, barrier: Any = barrier, found: list[Any] = found) -> None:
                barrier.wait()
                found.append(tickets.redeem(text))

            threads = [threading.Thread(target=redeem) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sum(one is not None for one in found) == 1

    def test_is_good_for_seconds_only(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tickets, "TICKET_SECONDS", 0.1)
        text = ticket(v1)
        time.sleep(0.15)

        assert with_ticket(v1, text).closed()[0] == 4401

    def test_that_never_was_is_refused(self, v1: V1) -> None:
        wrongs: list[Any] = ["", "nonsense", "x" * 5000, None, 5, {}, "\u0000"]
        for wrong in wrongs:
            socket = open_socket(v1)
            socket.say("auth", ticket=wrong)
            code, reason = socket.closed()
            assert code == 4401
            assert "ticket" in reason

    def test_of_a_key_that_was_revoked_meanwhile_opens_nothing_that_can_call(self, v1: V1) -> None:
        text = ticket(v1)
        keys.revoke(v1.api_key)
        socket = with_ticket(v1, text)

        socket.start()

        assert socket.closed()[0] == 4401
        assert v1.upstream.requests == []

    def test_is_for_who_may_call(self, v1: V1) -> None:
        assert v1.send("POST", TICKETS, headers={"Authorization": ""}).status_code in (401, 403)
        assert v1.post(TICKETS, None, key=v1.key[:-1]).status_code == 401

    def test_needs_the_csrf_token_of_a_session(self, v1: V1, ada: Any) -> None:
        headers = {"Cookie": cookie(ada), "Authorization": ""}
        assert v1.send("POST", TICKETS, headers=headers).status_code == 403

    def test_is_kept_by_its_hash(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        names: list[str] = []

        def keep(name: str, *rest: Any) -> None:
            names.append(name)

        monkeypatch.setattr(cache, "set", keep)
        text = tickets.issue(keys.authenticate(v1.key, surface="ws")).text
        assert len(names) == 1
        assert text not in names[0]


class TestASession:
    def test_with_the_hubs_own_origin_opens_one(self, v1: V1, ada: Any) -> None:
        assert_works(open_socket(v1, {"Cookie": cookie(ada), "Origin": v1.hub.url}))
        row = v1.row()
        assert (row.user_id, row.api_key_id) == (ada.pk, None)

    def test_with_any_other_origin_never_counts(self, v1: V1, ada: Any) -> None:
        url, shown = v1.hub.url, cookie(ada)
        for foreign in (
            "https://evil.example",
            "null",
            f"{url}.evil.example",
            f"{url}/",
            url.replace("http:", "https:"),
            "http://127.0.0.1",
            f"http://localhost:{v1.hub.port}",
            f"{url}, {url}",
            "",
        ):
            socket = open_socket(v1, {"Cookie": shown, "Origin": foreign})
            socket.start()
            assert socket.closed()[0] == 4401, foreign
        assert v1.rows() == []

    def test_without_an_origin_does_not_count(self, v1: V1, ada: Any) -> None:
        socket = open_socket(v1, {"Cookie": cookie(ada)})
        socket.start()
        assert socket.closed()[0] == 4401

    def test_that_does_not_count_leaves_it_to_a_ticket_in_the_first_frame(self, v1: V1, ada: Any) -> None:
        for origin in ({"Origin": "https://else.example"}, {}):
            socket = open_socket(v1, {"Cookie": cookie(ada), **origin})
            socket.say("auth", ticket=ticket(v1))
            assert_works(socket)
        assert {(row.api_key, row.user_id) for row in v1.rows()} == {(v1.api_key, None)}

    def test_with_an_origin_that_staff_trust_opens_one(self, v1: V1, ada: Any, settings: Settings) -> None:
        settings.CSRF_TRUSTED_ORIGINS = ["https://hub.example.com"]
        assert_works(open_socket(v1, {"Cookie": cookie(ada), "Origin": "https://hub.example.com"}))

    def test_pays_by_the_project_that_was_chosen(self, v1: V1, ada: Any) -> None:
        other = make_project("another", members=(ada,))
        headers = {"Cookie": cookie(ada), "Origin": v1.hub.url}
        assert_works(open_socket(v1, headers, query="?project=web"))
        assert_works(open_socket(v1, headers, query="?project=another"))
        assert {row.project for row in v1.rows()} == {v1.project, other}

    def test_of_one_who_is_no_member_is_refused(self, v1: V1, ada: Any) -> None:
        v1.set(ada, is_superuser=False)
        make_project("theirs")
        headers = {"Cookie": cookie(ada), "Origin": v1.hub.url}
        assert open_socket(v1, headers, query="?project=theirs").closed()[0] == 4403
        v1.project.members.clear()
        assert open_socket(v1, headers).closed()[0] == 4403

    def test_that_is_none_leaves_it_to_the_first_frame(self, v1: V1) -> None:
        for value in ("sessionid=nonsense", "sessionid=", "other=1", "=;;,"):
            socket = open_socket(v1, {"Cookie": value, "Origin": v1.hub.url})
            socket.say("auth", ticket=ticket(v1))
            assert_works(socket)

    def test_of_a_person_who_was_deactivated_opens_nothing(self, v1: V1, ada: Any) -> None:
        shown = cookie(ada)
        v1.set(ada, is_active=False)
        socket = open_socket(v1, {"Cookie": shown, "Origin": v1.hub.url})
        socket.start()
        assert socket.closed()[0] == 4401


def no_member(v1: V1, ada: Any) -> None:
    v1.set(ada, is_superuser=False)
    v1.project.members.remove(ada)


def disabled(v1: V1, ada: Any) -> None:
    v1.set(v1.project, enabled=False)


@pytest.mark.parametrize("change", [no_member, disabled])
def test_a_person_who_left_the_project_is_refused_on_a_socket_that_is_open(
    v1: V1, ada: Any, change: Callable[[V1, Any], None]
) -> None:
    socket = open_socket(v1, {"Cookie": cookie(ada), "Origin": v1.hub.url})
    assert_works(socket)
    change(v1, ada)

    socket.start("c2")

    assert socket.refusal()["code"] == "permission_denied"
    assert socket.closed()[0] == 4403
    assert len(v1.upstream.requests) == 1


class TestNobody:
    def test_may_say_anything_but_who_it_is(self, v1: V1) -> None:
        for kind in ("start", "resume", "cancel", "ping", "nonsense"):
            socket = open_socket(v1)
            socket.say(kind, id="c1", request={}, stream="x")
            assert socket.closed()[0] == 4401

    def test_may_talk_nonsense(self, v1: V1) -> None:
        for data in (b"nonsense", b"", b"[]", b'"auth"', b"null"):
            socket = open_socket(v1)
            socket.send(data)
            assert socket.closed()[0] == 4401

    def test_may_stay_silent_for_long(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sockets, "AUTH_SECONDS", 0.2)
        began = time.monotonic()
        code, reason = open_socket(v1).closed()
        assert (code, reason) == (4401, "Nobody said who this is.")
        assert 0.15 < time.monotonic() - began < 2

    def test_that_said_in_time_who_it_is_stays(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sockets, "AUTH_SECONDS", 0.2)
        socket = open_socket(v1)
        socket.say("auth", ticket=ticket(v1))
        time.sleep(0.3)
        assert_works(socket)

    def test_who_said_it_once_need_not_say_it_again(self, v1: V1) -> None:
        socket = connect(v1)
        socket.say("auth", ticket="nonsense")
        assert_works(socket)


class TestWhileTheDatabaseIsAway:
    def test_a_stranger_is_told_to_try_later(self, v1: V1) -> None:
        """1013, not 4401: nobody is to throw a key away that could not be looked up."""
        accounts.forget()
        v1.during.callback(database.note, away=False)
        database.note(away=True)
        assert connect(v1).closed()[0] == 1013

    def test_a_call_is_refused_in_words(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        async def away(*_: Any) -> None:
            raise OperationalError("gone")

        socket = connect(v1)
        monkeypatch.setattr("completions.socket_auth.akey", away)

        socket.start()

        assert socket.refusal()["code"] == "hub_unavailable"
        socket.pong()


class TestARevokedKey:
    def test_loses_its_streams_and_its_socket_within_seconds(self, v1: V1) -> None:
        v1.upstream.events(chunk({"content": "one"}), end=End.HOLD)
        socket, other = connect(v1), connect(v1)
        socket.start("c1")
        socket.frames(2)
        began = time.monotonic()

        keys.revoke(v1.api_key)

        frames: list[Any] = []
        code, reason = 0, ""
        try:
            while True:
                frames.append(socket.hear())
        except shared.Closed as end:
            code, reason = end.code, end.reason
        assert time.monotonic() - began < 5
        assert (code, reason) == (4401, "This API key was revoked.")
        assert other.closed()[0] == 4401
        assert all(shared.told(frame)["code"] == "invalid_api_key" for frame in frames)
        assert v1.upstream.requests[0].wait_gone(1)
        row = v1.row()
        assert (row.state, row.completion_tokens) == (State.CANCELLED, 1)

    def test_does_not_touch_the_sockets_of_others(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(revocation, "LOOK_SECONDS", 0.1)
        _, key = make_key(v1.project, "other")
        other, mine = connect(v1, key), connect(v1)

        keys.revoke(v1.api_key)

        assert mine.closed()[0] == 4401
        assert_works(other)


def test_a_socket_that_is_gone_is_watched_no_longer(v1: V1) -> None:
    for reset in (True, False):
        connect(v1).leave(reset=reset)
    watchers = list(revocation._watchers._all.values())
    assert eventually(lambda: not any(runs for one in watchers for runs in one.runs.values()))
