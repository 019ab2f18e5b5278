"""The admin's page of the calls that run now: what it shows, to whom, and how a call is ended from it."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from completions.ledger import new_id
from completions.models import Completion, State
from tests.factories import make_staff
from tests.fakes import End, chunk
from tests.surfaces import ws as shared
from tests.surfaces import ws_pair
from tests.surfaces.v1 import PIECES, PROMPT, V1, Caller, cost
from tests.surfaces.ws import begin, cookie
from tests.surfaces.ws_pair import Pair, held
from tests.waiting import eventually

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left
database, processes, pair = ws_pair.database, ws_pair.processes, ws_pair.pair

PAGE = "/admin/completions/completion/running/"
ENDED = "Staff of the hub ended this call before its answer was complete."


class Staff:
    """A browser of somebody who is signed in."""

    def __init__(self, url: str, user: User) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.headers["Cookie"] = f"{cookie(user)}; csrftoken={'x' * 32}"

    def get(self, path: str = PAGE) -> requests.Response:
        return self.session.get(self.url + path, timeout=10, allow_redirects=False)

    def rows(self) -> list[list[str]]:
        """The table's rows, as the text of their cells."""
        rows = re.findall(r'<tr id="call-.*?</tr>', self.get(f"{PAGE}rows/").text, re.DOTALL)
        return [
            [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in re.split(r"</t[dh]>", row)[:-1]]
            for row in rows
        ]

    def cancel(self, call: uuid.UUID, *, json: bool = False, token: str = "x" * 32) -> requests.Response:
        given = {"X-CSRFToken": token} | ({"Accept": "application/json"} if json else {})
        path = f"{self.url}{PAGE}{call}/cancel/"
        return self.session.post(path, headers=given, timeout=10)


def staff_with(*codenames: str, name: str = "grace") -> User:
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


@pytest.fixture
def ada(v1: V1) -> Iterator[Staff]:
    user = make_staff()
    yield Staff(v1.hub.url, user)
    LogEntry.objects.all().delete()
    User.objects.all().delete()


@pytest.fixture
def grace(v1: V1) -> Iterator[Staff]:
    """Somebody who may look, and no more."""
    yield Staff(v1.hub.url, staff_with("view_completion"))
    User.objects.all().delete()


def running() -> Completion:
    return Completion.objects.get(state=State.RUNNING)


class TestThePage:
    def test_says_so_where_nothing_runs(self, ada: Staff) -> None:
        page = ada.get()
        assert page.status_code == 200
        assert "No call runs at the moment." in page.text
        assert ada.rows() == []

    def test_shows_who_asks_which_model_for_how_long_and_how_far_it_is(self, v1: V1, ada: Staff) -> None:
        v1.upstream.events(chunk({"content": "word " * 40}), end=End.HOLD)
        Caller(v1).frame()
        assert eventually(lambda: "Answering" in str(ada.rows()))

        [[model, who, how, state, tokens, age, end]] = ada.rows()

        assert (model, who) == ("gpt-4o upstream", f"Web test key (…{v1.key[-4:]})")
        assert (how, state, tokens) == ("/v1, streamed", "Answering", "≈ 50")
        assert re.fullmatch(r"\d s", age)
        assert end == "Cancel gpt-4o for Web"

    def test_shows_calls_of_every_surface_and_that_they_wait(self, v1: V1, ada: Staff) -> None:
        v1.upstream.hangs("headers")
        Caller(v1, stream=False)
        v1.upstream.wait_for()
        socket = shared.connect(v1)
        socket.start()
        v1.upstream.wait_for(2)

        rows = ada.rows()

        assert [row[2:5] for row in rows] == [
            ["/v1, in one piece", "Waiting", "-"],
            ["Websocket, streamed", "Waiting", "-"],
        ]
        assert '<span class="font-semibold">2</span> calls run now' in ada.get().text
        assert "2 calls run now" in ada.get("/admin/").text

    def test_names_the_person_where_there_is_no_key(self, v1: V1, ada: Staff) -> None:
        user = User.objects.get()
        self._row(v1, user_id=user.pk, api_key=None, user=user)
        assert ada.rows()[0][1] == "Web ada"

    def test_marks_a_call_whose_process_is_gone_which_nobody_can_end(self, v1: V1, ada: Staff) -> None:
        self._row(v1, epoch_id=10**9)
        [row] = ada.rows()
        assert (row[3], row[-1]) == ("Process gone", "")

    def test_shows_names_as_text(self, v1: V1, ada: Staff) -> None:
        self._row(v1, requested_model="<script>alert(1)</script>")
        page = ada.get().text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page

    def test_costs_the_same_however_many_calls_run(self, v1: V1, ada: Staff, monkeypatch: Any) -> None:
        monkeypatch.setattr("completions.underway.MOST", 30)
        for _ in range(40):
            self._row(v1)
        rows = ada.rows()
        assert len(rows) == 30
        page = ada.get().text
        assert (
            '<span class="font-semibold">40</span> calls run now: here are the 30 that have run longest'
            in page
        )

    def _row(self, v1: V1, **fields: Any) -> None:
        made = {"request_id": "r", "project": v1.project, "api_key": v1.api_key, "surface": "api"}
        values = made | {"requested_model": "gpt-4o", "created_at": timezone.now()} | fields
        row = Completion.objects.create(id=new_id(), state=State.RUNNING, **values)
        v1.during.callback(Completion.objects.filter(pk=row.pk).delete)

    def test_leaves_the_price_of_a_call_open_while_it_runs(self, v1: V1, ada: Staff) -> None:
        begin(v1, "one")
        assert "Unpriced" not in ada.get("/admin/").text

    def test_is_never_kept_and_has_no_script_of_its_own_in_it(self, ada: Staff) -> None:
        page = ada.get()
        assert "no-store" in page.headers["cache-control"]
        main = page.text[page.text.index('id="running"') :]
        assert "onclick" not in main
        assert "completions/running.js" in page.text


class TestWhoMaySeeIt:
    @pytest.mark.parametrize("path", [PAGE, f"{PAGE}rows/", f"{PAGE}{uuid.UUID(int=7)}/cancel/"])
    def test_nobody_who_is_not_signed_in(self, v1: V1, path: str) -> None:
        answer = requests.get(v1.hub.url + path, timeout=10, allow_redirects=False)
        assert answer.status_code == 302
        assert "/login/" in answer.headers["location"]

    def test_nobody_without_the_permission_to_view_calls(self, v1: V1) -> None:
        staff = Staff(v1.hub.url, staff_with("view_project", name="bob"))
        assert [staff.get(path).status_code for path in (PAGE, f"{PAGE}rows/")] == [403, 403]
        assert "Running now" not in staff.get("/admin/").text
        User.objects.all().delete()

    def test_who_may_view_calls_is_led_there(self, grace: Staff) -> None:
        assert grace.get().status_code == 200
        assert f'href="{PAGE}"' in grace.get("/admin/").text

    def test_who_may_only_look_is_offered_no_end_and_cannot_make_one(self, v1: V1, grace: Staff) -> None:
        begin(v1, "one")
        assert "Cancel" not in str(grace.rows())

        answer = grace.cancel(running().pk)

        assert answer.status_code == 403
        assert not v1.upstream.requests[0].wait_gone(0.2)

    def test_an_end_needs_its_token(self, v1: V1, ada: Staff) -> None:
        begin(v1, "one")
        answer = ada.cancel(running().pk, token="y" * 32)
        assert answer.status_code == 403
        assert running().state == State.RUNNING

    def test_a_get_ends_nothing(self, v1: V1, ada: Staff) -> None:
        begin(v1, "one")
        answer = ada.get(f"{PAGE}{running().pk}/cancel/")
        assert "End this call?" in answer.text
        assert not v1.upstream.requests[0].wait_gone(0.2)


class TestCancel:
    def test_settles_the_call_as_cancelled_and_its_stream_is_told(self, v1: V1, ada: Staff) -> None:
        v1.upstream.events(*(chunk({"content": piece}) for piece in PIECES[:3]), end=End.HOLD)
        caller = Caller(v1)
        caller.frames(3)

        answer = ada.cancel(running().pk)

        assert "gpt-4o for Web was cancelled." in answer.text
        assert v1.upstream.requests[0].wait_gone(1)
        [last] = list(iter(caller.frame, None))
        assert (last["error"]["code"], last["error"]["message"]) == ("call_ended", ENDED)
        row = v1.row()
        assert (row.state, row.completion_tokens, row.usage_source) == (State.CANCELLED, 3, "counted")
        assert row.cost_nano_usd == cost(PROMPT, 3)
        assert v1.budget.windows.get().spent_nano == cost(PROMPT, 3)
        assert ada.rows() == []

    def test_of_a_whole_answer_is_an_error_to_its_caller(self, v1: V1, ada: Staff) -> None:
        v1.upstream.hangs("headers")
        caller = Caller(v1, stream=False)
        v1.upstream.wait_for()

        ada.cancel(running().pk)

        answer = caller.answer()
        assert (answer.status, answer.headers["x-should-retry"]) == (499, "false")
        assert ENDED in answer.read().decode()
        assert v1.row().state == State.CANCELLED

    def test_over_a_websocket_ends_one_stream_with_an_error_and_the_socket_stays(
        self, v1: V1, ada: Staff
    ) -> None:
        socket, _ = begin(v1, "one")

        ada.cancel(running().pk)

        error = shared.told(socket.rest()[-1])
        assert (error["code"], error["message"]) == ("call_ended", ENDED)
        socket.pong()
        assert v1.row().state == State.CANCELLED

    def test_of_a_call_through_api_reaches_it_too(self, v1: V1, ada: Staff) -> None:
        v1.upstream.hangs("headers")
        caller = Caller(v1, "/api/completions/", stream=False, user=None, config={})
        v1.upstream.wait_for()

        ada.cancel(running().pk)

        answer = caller.answer()
        assert answer.status == 499
        assert v1.row().state == State.CANCELLED

    def test_is_noted_with_who_did_it(self, v1: V1, ada: Staff) -> None:
        begin(v1, "one")
        call = running()

        ada.cancel(call.pk)

        entry = LogEntry.objects.get()
        assert (entry.user.username, entry.object_id, entry.change_message) == (
            "ada",
            str(call.pk),
            "Cancelled while it ran.",
        )

    def test_tells_a_script_in_json(self, v1: V1, ada: Staff) -> None:
        begin(v1, "one")
        answer = ada.cancel(running().pk, json=True)
        assert answer.json() == {"told": "gpt-4o for Web was cancelled."}
        assert "was cancelled" not in ada.get().text

    def test_of_one_that_has_ended_says_so(self, v1: V1, ada: Staff) -> None:
        assert v1.chat().status_code == 200
        row = v1.row()
        assert "had ended already" in ada.cancel(row.pk).text
        assert v1.row().state == State.OK

    def test_of_one_that_never_was_is_not_found(self, ada: Staff) -> None:
        assert ada.cancel(uuid.uuid4()).status_code == 404

    def test_of_one_that_cannot_be_reached_says_so(
        self, v1: V1, ada: Staff, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("completions.admin.running_calls.END_SECONDS", 0.1)
        TestThePage()._row(v1)
        assert "was told to end, but has not yet" in ada.cancel(running().pk).text


@pytest.mark.postgres
@pytest.mark.redis
class TestAnotherProcess:
    def ada(self, pair: Pair) -> requests.Session:
        """Staff, at a browser whose requests go to process two."""
        session = requests.Session()
        session.headers["Cookie"] = f"sessionid={pair.staff_session}; csrftoken={'x' * 32}"
        session.headers["X-CSRFToken"] = "x" * 32
        return session

    def test_makes_calls_that_the_page_of_this_one_shows(self, pair: Pair) -> None:
        _, frames = held(pair, "one", " two")

        shown = self.ada(pair).get(f"{pair.two.url}{PAGE}rows/", timeout=10).text
        assert f'id="call-{uuid.UUID(frames[0]["stream"])}"' in shown

    def test_ends_a_call_when_this_one_is_asked_to(self, pair: Pair) -> None:
        socket, frames = held(pair, "one", " two")
        call = uuid.UUID(frames[0]["stream"])

        answer = self.ada(pair).post(f"{pair.two.url}{PAGE}{call}/cancel/", timeout=10)

        assert answer.ok
        last = socket.rest()[-1]
        assert (last["type"], last["error"]["message"]) == ("error", ENDED)
        [(state, tokens)] = pair.rows()
        assert state == "cancelled"
        assert tokens > 0
        assert pair.upstream.requests[0].wait_gone(5)
        pair.one.assert_true()
