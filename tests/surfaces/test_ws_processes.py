"""Two processes of one hub, by Redis: a stream is read on, and cancelled, where its call does not run."""

import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import requests
from redis import Redis

from tests.fakes import FakeUpstream
from tests.outside import TEST_REDIS_URL
from tests.proofs.hub import KEY
from tests.surfaces import ws_pair as shared
from tests.surfaces.v1 import PIECES
from tests.surfaces.ws import LAST, TICKETS, Message, is_gapless, text_of, told
from tests.surfaces.ws_pair import GRACE_SECONDS, OTHERS_KEY, Caller, Pair, held
from tests.waiting import eventually

database, processes, pair = shared.database, shared.processes, shared.pair

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

TEXT = ["Der ", "Bär", ' sagt: "', "👩🏽‍🚀", "\\n", "\n\r\n", "e\u0301", "\u2028", " end", "."]


class TestAStreamOfTheOtherProcess:
    def test_is_read_on_after_a_cut_at_every_frame(self, pair: Pair) -> None:
        pair.upstream.streams(TEXT, delay=0.08)
        calls = len(TEXT) + 3
        firsts = [pair.caller(pair.one) for _ in range(calls)]
        for socket in firsts:
            socket.begin()

        cut: list[tuple[list[Message], Caller]] = []
        for count, first in enumerate(firsts, start=1):
            before = first.upto(count)
            first.leave(reset=bool(count % 2))
            second = pair.caller(pair.two)
            second.resume(before[0]["stream"], before[-1]["seq"])
            cut.append((before, second))

        for before, second in cut:
            frames = before if before[-1]["type"] in LAST else before + second.rest()
            assert is_gapless(frames)
            assert text_of(frames).encode() == "".join(TEXT).encode()
            assert [frame["type"] for frame in frames[-2:]] == ["usage", "done"]
        assert [state for state, _ in pair.rows()] == ["ok"] * calls
        assert len(pair.upstream.requests) == calls

    def test_goes_to_and_fro_between_them(self, pair: Pair) -> None:
        pair.upstream.streams(TEXT, delay=0.05)
        socket = pair.caller(pair.one)
        socket.begin()
        frames = [socket.hear()]
        while frames[-1]["type"] not in LAST:
            socket.leave()
            socket = pair.caller((pair.two, pair.one)[len(frames) % 2])
            socket.resume(frames[0]["stream"], frames[-1]["seq"])
            frames.append(socket.hear())

        assert is_gapless(frames)
        assert text_of(frames) == "".join(TEXT)

    def test_that_has_ended_comes_whole(self, pair: Pair) -> None:
        pair.upstream.streams(TEXT)
        first = pair.caller(pair.one)
        first.begin()
        frames = first.rest()
        first.close()

        second = pair.caller(pair.two)
        assert eventually(lambda: self._whole(second, frames))

    def _whole(self, socket: Caller, frames: list[Message]) -> bool:
        socket.resume(frames[0]["stream"])
        return socket.rest() == frames

    def test_goes_on_for_as_long_as_it_is_read_there(self, pair: Pair) -> None:
        first, frames = held(pair, "one")
        first.leave()
        second = pair.caller(pair.two)
        second.resume(frames[0]["stream"], 0)
        assert second.hear()["content"] == "one"

        assert not pair.upstream.requests[0].wait_gone(1.5 * GRACE_SECONDS)

        second.leave()
        assert pair.upstream.requests[0].wait_gone(5)
        assert [state for state, _ in pair.rows()] == ["client_gone"]

    def test_is_not_kept_for_ever(self, pair: Pair) -> None:
        socket, frames = held(pair, "one")
        socket.cancel()
        socket.rest()
        with closing(Redis.from_url(TEST_REDIS_URL)) as redis:
            name = f"llmhub:live:{frames[0]['stream']}"
            assert eventually(lambda: redis.exists(name, f"{name}:owner") == 2)
            left = [redis.ttl(name), redis.ttl(f"{name}:owner")]
        assert all(300 <= seconds <= 600 for seconds in left)

    def test_is_read_and_cancelled_there_before_its_first_word(self, pair: Pair) -> None:
        pair.upstream.hangs("headers")
        first = pair.caller(pair.one)
        first.begin()
        stream = first.stream_of("c1")
        second = pair.caller(pair.two)
        second.resume(stream)

        second.say("cancel", stream=stream)

        assert second.rest()[-1]["type"] == "cancelled"
        assert [state for state, _ in pair.rows()] == ["cancelled"]

    def test_is_cancelled_from_there(self, pair: Pair) -> None:
        _, frames = held(pair, "one", " two")
        second = pair.caller(pair.two)
        second.resume(frames[0]["stream"], 0)
        assert second.hear()["type"] == "delta"

        second.cancel()

        assert second.rest()[-1]["type"] == "cancelled"
        assert pair.upstream.requests[0].wait_gone(1)
        assert pair.rows() == [("cancelled", 2)]

    def test_is_cancelled_from_there_by_its_name_without_being_read(self, pair: Pair) -> None:
        first, frames = held(pair, "one")
        second = pair.caller(pair.two)

        second.say("cancel", stream=frames[0]["stream"])

        assert first.rest()[-1]["type"] == "cancelled"
        assert [state for state, _ in pair.rows()] == ["cancelled"]

    def test_of_another_key_is_as_good_as_none(self, pair: Pair) -> None:
        _, frames = held(pair, "one")
        stranger = pair.caller(pair.two, OTHERS_KEY)

        stranger.resume(frames[0]["stream"])
        mine = told(stranger.hear())
        stranger.resume(uuid.uuid4().hex)
        none = told(stranger.hear())
        stranger.say("cancel", stream=frames[0]["stream"])

        assert mine == none
        assert mine["code"] == "stream_not_found"
        assert not pair.upstream.requests[0].wait_gone(0.3)

    def test_frame_that_never_was_is_refused_at_its_end(self, pair: Pair) -> None:
        first, frames = held(pair, "one")
        second = pair.caller(pair.two)
        second.resume(frames[0]["stream"], 500)
        first.cancel()
        assert told(second.hear())["param"] == "last_seq"


class TestStaffAtTheOtherProcess:
    """See tests/surfaces/test_admin_running.py."""

    def test_end_a_call_which_is_settled_and_its_caller_told(self, pair: Pair) -> None:
        first, frames = held(pair, *PIECES[:2])
        call = uuid.UUID(frames[0]["stream"])
        staff = {
            "Cookie": f"sessionid={pair.staff_session}; csrftoken={'x' * 32}",
            "X-CSRFToken": "x" * 32,
        }
        page = f"{pair.two.url}/admin/completions/completion/running/"
        assert str(call) in requests.get(page, headers=staff, timeout=10).text

        answer = requests.post(f"{page}{call}/cancel/", headers=staff, timeout=10)

        assert "was cancelled." in answer.text
        assert told(first.rest()[-1])["message"].startswith("Staff of the hub ended this call")
        first.pong()
        assert pair.upstream.requests[0].wait_gone(1)
        assert pair.rows() == [("cancelled", 2)]


class TestTickets:
    def test_of_one_process_are_good_at_the_other_once(self, pair: Pair) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = requests.post(f"{pair.one.url}{TICKETS}", headers=headers, timeout=5)
        name = f"llmhub.ticket.{answer.json()['ticket']}"

        sockets = [pair.caller(hub, "", subprotocols=[name]) for hub in (pair.two, pair.one, pair.two)]

        sockets[0].pong()
        assert [socket.closed()[0] for socket in sockets[1:]] == [4401, 4401]

    def test_are_good_once_though_both_processes_are_asked_at_the_same_moment(self, pair: Pair) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        for _ in range(5):
            answer = requests.post(f"{pair.one.url}{TICKETS}", headers=headers, timeout=5)
            sockets = [pair.caller(hub, "") for hub in (pair.one, pair.two) * 4]
            for socket in sockets:
                socket.say("auth", ticket=answer.json()["ticket"])
            for socket in sockets:
                socket.say("ping")
            assert [socket.is_open() for socket in sockets].count(True) == 1


class TestWhileRedisIsAway:
    @pytest.fixture(params=["broken", "silent"])
    def away(self, request: pytest.FixtureRequest, pair: Pair) -> Any:
        """Makes it so."""

        def go() -> None:
            if request.param == "silent":
                pair.line.frozen = True
            else:
                pair.line.down = True
                pair.line.cut()

        return go

    def back(self, pair: Pair) -> None:
        if pair.line.frozen:
            pair.line.cut()
        pair.line.down = pair.line.frozen = False

    def test_a_stream_goes_on_on_its_own_socket_and_is_whole_elsewhere_afterwards(
        self, pair: Pair, away: Any
    ) -> None:
        pair.upstream.streams(TEXT, delay=0.06)
        socket = pair.caller(pair.one)
        socket.begin()
        frames = socket.frames(3)
        began = time.monotonic()

        away()

        frames += socket.rest()
        assert time.monotonic() - began < 3
        assert is_gapless(frames)
        assert text_of(frames) == "".join(TEXT)
        again = pair.caller(pair.one)
        again.resume(frames[0]["stream"], 0)
        assert again.rest() == frames[1:]
        self.back(pair)
        second = pair.caller(pair.two)
        second.connection.settimeout(15)
        second.resume(frames[0]["stream"])
        while (frame := second.hear()).get("resumed"):
            time.sleep(0.1)
            second.resume(frames[0]["stream"])
        assert [frame, *second.rest()] == frames

    def test_who_comes_back_elsewhere_is_told_to_try_again(self, pair: Pair, away: Any) -> None:
        _, frames = held(pair, "one")
        second = pair.caller(pair.two)
        away()

        second.resume(frames[0]["stream"])

        frame = second.hear()
        assert told(frame)["code"] == "hub_unavailable"
        assert frame["error"]["retry_after"] >= 1
        self.back(pair)

    def test_who_reads_elsewhere_reads_on_when_it_is_back(self, pair: Pair, away: Any) -> None:
        pair.upstream.streams(TEXT, delay=0.08)
        socket = pair.caller(pair.one)
        socket.begin()
        begun = socket.hear()
        second = pair.caller(pair.two)
        second.resume(begun["stream"], 0)
        frames = [begun, second.hear()]

        away()
        time.sleep(0.3)
        self.back(pair)

        second.connection.settimeout(15)
        frames += second.rest()
        assert is_gapless(frames)
        assert text_of(frames) == "".join(TEXT)

    def test_for_long_who_reads_elsewhere_is_told_that_the_stream_is_lost(self, pair: Pair) -> None:
        _, frames = held(pair, "one")
        second = pair.caller(pair.two)
        second.resume(frames[0]["stream"], 0)
        assert second.hear()["type"] == "delta"

        pair.line.down = True
        pair.line.cut()

        last = second.hear()
        assert (last["type"], told(last)["code"], last["seq"]) == ("error", "stream_lost", 2)
        self.back(pair)


def test_who_reads_a_stream_of_a_process_that_is_dead_is_told_that_the_rest_is_lost(pair: Pair) -> None:
    """It is only frozen, which looks the same from elsewhere and needs no new start."""
    _, frames = held(pair, "one")
    second = pair.caller(pair.two)
    second.resume(frames[0]["stream"], 0)
    assert second.hear()["content"] == "one"

    pair.one.signal(signal.SIGSTOP)
    pair.during.callback(pair.one.signal, signal.SIGCONT)

    last = second.hear()
    assert (last["type"], told(last)["code"], last["seq"]) == ("error", "stream_lost", 2)


@pytest.fixture(scope="class")
def stopped(processes: tuple[Pair, FakeUpstream]) -> Iterator[dict[str, Any]]:
    """The frames of a `short` stream and of an `endless` one, what a `late` one was told, close codes."""
    pair, upstream = processes
    pair.upstream = upstream
    with pair.during:
        pair.upstream._scripts.clear()
        endless, begun = held(pair, *PIECES[:2])
        pair.upstream._scripts.clear()
        pair.upstream.streams(TEXT, delay=0.05)
        short, idle = pair.caller(pair.one), pair.caller(pair.one)
        short.begin()
        frames = short.frames(2)
        pair.one.signal(signal.SIGTERM)
        frames += short.rest()
        idle.begin("late")
        yield {
            "short": frames,
            "endless": begun + endless.rest(),
            "late": told(idle.rest("late")[-1]),
            "codes": [socket.closed()[0] for socket in (short, endless, idle)],
        }
        pair.one.wait(10)


class TestAProcessThatIsStopped:
    """What it runs may finish for LLMHUB_DRAIN_SECONDS."""

    def test_finishes_its_streams(self, stopped: dict[str, Any]) -> None:
        assert is_gapless(stopped["short"])
        assert text_of(stopped["short"]) == "".join(TEXT)
        assert stopped["short"][-1]["type"] == "done"

    def test_says_so_of_those_that_could_not_be_finished_in_time(self, stopped: dict[str, Any]) -> None:
        assert is_gapless(stopped["endless"])
        assert told(stopped["endless"][-1])["code"] == "shutting_down"

    def test_takes_no_new_ones(self, stopped: dict[str, Any]) -> None:
        assert stopped["late"]["code"] == "shutting_down"

    def test_closes_its_sockets_so_that_their_pages_come_back(self, stopped: dict[str, Any]) -> None:
        assert stopped["codes"] == [1012] * 3

    @pytest.mark.parametrize("name", ["short", "endless"])
    def test_leaves_its_streams_to_be_read_elsewhere(
        self, stopped: dict[str, Any], pair: Pair, name: str
    ) -> None:
        socket = pair.caller(pair.two)
        socket.resume(stopped[name][0]["stream"])
        assert socket.rest() == stopped[name]


def test_after_all_of_this_the_ledger_is_true(pair: Pair) -> None:
    pair.two.assert_true()
