"""Equal calls at once: they share one upstream call, and what befalls one of them befalls no other."""

import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from completions import keys, metrics
from completions.cache import flights, given, index
from completions.models import Budget, CachedResponse, Completion, State
from tests.factories import make_key, make_project
from tests.fakes import chunked, completion, response, sse
from tests.surfaces import v1 as shared
from tests.surfaces.cached import (
    COST,
    TEXT,
    Together,
    ask,
    by,
    cache_of,
    cache_of_caller,
    caller,
    in_flight,
    results,
    riders,
    says,
    text_of_whole,
    waits,
)
from tests.surfaces.v1 import DONE, PIECES, V1, Caller, checked, frames_of, text_of, told
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1


@pytest.fixture(autouse=True)
def nothing_is_left(v1: V1) -> Any:
    """No call is counted that has ended, and every lead that was begun is over."""
    before = in_flight()
    yield
    assert eventually(lambda: in_flight() == before), in_flight()
    assert all(not under_way for under_way in flights._flights._all.values())


def rest_of(one: Caller) -> list[Any]:
    frames = []
    while (frame := one.frame()) is not None:
        frames.append(frame)
    return frames


def states(v1: V1) -> list[str]:
    return sorted(row.state for row in v1.rows())


class TestWholeAndStreamed:
    def test_a_whole_call_gets_what_is_being_streamed(self, v1: V1) -> None:
        go = waits(v1)
        leader = caller(v1)
        leader.frames(2)
        [follower] = Together(v1).begin(1, lambda: ask(v1))
        go.set()

        assert text_of_whole(follower.result()) == TEXT
        assert cache_of(follower.result()) == "COALESCED"
        assert text_of(rest_of(leader)) == "".join(PIECES[2:])
        assert len(v1.upstream.requests) == 1

    def test_a_stream_gets_what_comes_whole(self, v1: V1) -> None:
        go = waits(v1)
        together = Together(v1)
        [leader] = together.begin(1, lambda: ask(v1))
        [follower] = together.begin(1, lambda: ask(v1, stream=True, stream_options={"include_usage": True}))
        go.set()
        frames = frames_of(follower.result())

        assert text_of(frames) == text_of_whole(leader.result()) == TEXT
        assert (frames[-1], frames[-2]["usage"]["cost_usd"]) == (DONE, "0")
        assert frames[0]["choices"][0]["delta"]["role"] == "assistant"
        assert len(v1.upstream.requests) == 1

    def test_each_is_told_what_it_asked_to_be_told(self, v1: V1) -> None:
        """Usage only where it was wanted; the model by the name that each used."""
        go = waits(v1)
        leader = caller(v1)
        leader.frames(1)
        wanted: Any = {"stream": True, "stream_options": {"include_usage": True}, "model": "upstream/gpt-4o"}
        [follower] = Together(v1).begin(1, lambda: ask(v1, **wanted))
        go.set()
        mine, theirs = rest_of(leader), frames_of(follower.result())

        assert not any("usage" in frame for frame in mine[:-1])
        assert [frame["usage"] for frame in theirs[:-2]] == [None] * (len(theirs) - 2)
        assert theirs[-2]["usage"]["total_tokens"] == 12
        assert {frame["model"] for frame in mine[:-1]} == {"gpt-4o"}
        assert {frame["model"] for frame in theirs[:-1]} == {"upstream/gpt-4o"}


class TestWhoHangsUp:
    @pytest.mark.parametrize("stream", [True, False])
    def test_leaves_the_others(self, v1: V1, stream: bool) -> None:
        go = waits(v1)
        leader = caller(v1)
        leader.frames(2)
        together = Together(v1)
        others = together.begin(2, lambda: ask(v1, stream=stream))
        gone = caller(v1, stream=stream)
        assert eventually(lambda: in_flight() == together._running + 1)
        gone.leave()
        assert eventually(lambda: in_flight() == together._running)
        go.set()

        answers = [text_of(frames_of(one)) if stream else text_of_whole(one) for one in results(others)]
        assert answers == [TEXT, TEXT]
        assert states(v1) == [State.CLIENT_GONE, State.COALESCED, State.COALESCED, State.OK]
        assert len(v1.upstream.requests) == 1

    def test_first_though_it_led_is_billed_for_the_whole(self, v1: V1) -> None:
        go = waits(v1)
        leader = caller(v1)
        leader.frames(2)
        [other] = Together(v1).begin(1, lambda: ask(v1))
        leader.leave()
        assert eventually(lambda: riders() == 1)
        go.set()

        assert text_of_whole(other.result()) == TEXT
        assert {(row.state, row.cost_nano_usd) for row in v1.rows()} == {
            (State.OK, COST),
            (State.COALESCED, 0),
        }

    def test_as_the_last_ends_the_upstream_call_at_what_came(self, v1: V1) -> None:
        waits(v1)
        leader = caller(v1)
        leader.frames(2)
        follower = caller(v1, stream=False)
        assert eventually(lambda: Completion.objects.count() == 1 and in_flight() > 1)
        leader.leave()
        follower.leave()

        assert v1.upstream.requests[0].wait_gone(5)
        assert eventually(lambda: Completion.objects.count() == 2)
        assert states(v1) == [State.CLIENT_GONE, State.CLIENT_GONE]
        assert sum(row.completion_tokens or 0 for row in v1.rows()) == 2

    def test_is_no_reason_to_keep_an_answer_that_is_not_whole(self, v1: V1) -> None:
        waits(v1)
        v1.upstream.answers("Whole.")
        one = caller(v1)
        one.frames(2)
        one.leave()

        assert v1.upstream.requests[0].wait_gone(5)
        assert says(v1) == "Whole."


class TestARevokedKey:
    @pytest.mark.parametrize("stream", [True, False])
    def test_of_the_leader_ends_nobody_elses_call(self, v1: V1, stream: bool) -> None:
        row, key = make_key(v1.project, "to be revoked")
        go = waits(v1)
        together = Together(v1)
        leader = caller(by(v1, key))
        leader.frames(2)
        [other] = together.begin(1, lambda: ask(v1, stream=stream))
        keys.revoke(row)
        error = checked(rest_of(leader)[-1]["error"])
        go.set()

        assert error["code"] == "invalid_api_key"
        answer = other.result()
        assert (text_of(frames_of(answer)) if stream else text_of_whole(answer)) == TEXT
        assert len(v1.upstream.requests) == 1

    def test_of_a_follower_ends_its_call_alone(self, v1: V1) -> None:
        row, key = make_key(v1.project, "to be revoked")
        go = waits(v1)
        leader = caller(v1)
        leader.frames(2)
        [follower] = Together(v1).begin(1, lambda: ask(by(v1, key)))
        keys.revoke(row)
        refused = follower.result()
        go.set()

        assert refused.status_code == 401
        assert text_of(rest_of(leader)) == "".join(PIECES[2:])
        assert states(v1) == [State.CANCELLED, State.OK]

    def test_of_the_only_caller_ends_the_upstream_call(self, v1: V1) -> None:
        waits(v1)
        leader = caller(v1)
        leader.frames(2)
        keys.revoke(v1.api_key)

        assert checked(rest_of(leader)[-1]["error"])["code"] == "invalid_api_key"
        assert v1.upstream.requests[0].wait_gone(5)
        assert v1.row().state == State.CANCELLED


class TestFailures:
    def test_a_leader_without_budget_is_refused_alone(self, v1: V1) -> None:
        """Two projects of one group: one has spent all it may."""
        poor = make_project("poor", cache_group="shop")
        v1.set(v1.project, cache_group="shop")
        Budget.objects.create(project=poor, amount=Decimal("0.000001"))
        _, key = make_key(poor)
        go = waits(v1)
        together = Together(v1)
        [paid] = together.begin(1, lambda: ask(v1))
        [rode] = together.begin(1, lambda: ask(by(v1, key)))
        go.set()
        assert (cache_of(paid.result()), cache_of(rode.result())) == ("MISS", "COALESCED")

        refused = ask(by(v1, key), top_p=0.5)
        assert (refused.status_code, told(refused)["code"]) == (402, "budget_exceeded")
        assert len(v1.upstream.requests) == 1

    def test_of_leaders_without_budget_do_not_reach_who_has_one(self, v1: V1) -> None:
        poor = make_project("poor", cache_group="shop")
        v1.set(v1.project, cache_group="shop")
        Budget.objects.create(project=poor, amount=Decimal("0.000001"))
        _, key = make_key(poor)
        v1.upstream.scripts(lambda _: [0.05, response(200, completion())])
        with ThreadPoolExecutor(20) as pool:
            calls = [pool.submit(ask, by(v1, key) if number % 2 else v1) for number in range(20)]

        answers = results(calls)
        assert {answer.status_code for answer in answers[::2]} == {200}
        assert {answer.status_code for answer in answers[1::2]} <= {200, 402}
        assert {row.cost_nano_usd for row in v1.rows() if row.project_id == poor.pk} <= {0}

    def test_of_three_leaders_are_told_to_all(self, v1: V1) -> None:
        """No upstream that is down is asked once for each of a hundred callers."""
        go = waits(v1, end=response(500, {}))
        v1.upstream.refuses(500)
        others = Together(v1).begin(20, lambda: ask(v1))
        go.set()

        assert {answer.status_code for answer in results(others)} == {503}
        assert len(v1.upstream.requests) <= 2 * 3  # each of three leaders tries twice
        rows = v1.rows()
        assert len(rows) == 20
        assert {row.state for row in rows} == {State.UPSTREAM_ERROR}
        assert sum(row.attempts for row in rows) == len(v1.upstream.requests)

    def test_that_a_request_itself_is_to_blame_for_are_told_to_all_at_once(self, v1: V1) -> None:
        body = {"error": {"message": "Too cold.", "type": "invalid_request_error", "code": "cold"}}
        go = waits(v1, end=response(400, body))
        others = Together(v1).begin(5, lambda: ask(v1))
        go.set()

        answers = results(others)
        assert {(answer.status_code, told(answer)["message"]) for answer in answers} == {(400, "Too cold.")}
        assert len(v1.upstream.requests) == 1

    def test_after_something_came_are_told_as_they_are(self, v1: V1) -> None:
        go = waits(v1, end=chunked(sse({"error": {"message": "Boom.", "type": "server_error"}})))
        together = Together(v1)
        leader = caller(v1)
        leader.frames(2)
        followers = together.begin(2, lambda: ask(v1, stream=True))
        go.set()

        for frames in (rest_of(leader), *(frames_of(one) for one in results(followers))):
            assert checked(frames[-1]["error"])
            assert DONE not in frames
        assert len(v1.upstream.requests) == 1

    def test_are_never_kept(self, v1: V1) -> None:
        v1.upstream.refuses(500).refuses(500).answers("Well again.")

        assert [ask(v1).status_code for _ in range(2)] == [503, 200]
        assert cache_of(ask(v1)) == "HIT"


class TestLargeAnswers:
    """Larger than what a flight keeps of a stream."""

    PIECE = "word " * 800
    COUNT = 200  # pieces of 4 kB

    @pytest.fixture(autouse=True)
    def small(self, settings: Any) -> None:
        settings.LLMHUB_CACHE_ENTRY_BYTES = 1024

    def test_reach_a_whole_call_after_its_leader_left(self, v1: V1) -> None:
        go = waits(v1, [self.PIECE] * self.COUNT)
        leader = caller(v1)
        leader.frames(2)
        [other] = Together(v1).begin(1, lambda: ask(v1))
        leader.leave()
        assert eventually(lambda: riders() == 1)
        go.set()

        assert text_of_whole(other.result()) == self.PIECE * self.COUNT
        assert len(v1.upstream.requests) == 1

    def test_reach_all_who_were_there_in_time_but_are_not_kept(self, v1: V1) -> None:
        go = waits(v1, [self.PIECE] * self.COUNT)
        leader = caller(v1)
        leader.frames(2)
        others = Together(v1).begin(3, lambda: ask(v1, stream=True))
        go.set()
        rest_of(leader)

        assert {text_of(frames_of(one)) for one in results(others)} == {self.PIECE * self.COUNT}
        index.flush()
        assert not CachedResponse.objects.exists()
        assert len(v1.upstream.requests) == 1

    def test_are_asked_for_anew_by_who_comes_too_late_for_their_beginning(self, v1: V1) -> None:
        go = waits(v1, [self.PIECE] * self.COUNT, first=self.COUNT - 1)
        leader = caller(v1)
        leader.frames(self.COUNT - 1)
        late = caller(v1)
        late.frames(self.COUNT - 1)
        go.set()

        assert cache_of_caller(late) == "MISS"
        assert DONE in rest_of(leader)
        assert DONE in rest_of(late)
        assert len(v1.upstream.requests) == 2

    def test_do_not_wait_for_a_slow_follower(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(given, "SLOW_SECONDS", 2.5)
        monkeypatch.setattr(flights, "PATIENCE_SECONDS", 0.3)
        go = waits(v1, [self.PIECE] * 2000)
        together = Together(v1)
        leader = caller(v1)
        leader.frames(2)
        caller(v1, buffer=4096)  # it never reads
        assert eventually(lambda: in_flight() == together._running + 2)
        began = time.monotonic()
        go.set()
        frames = rest_of(leader)

        assert frames[-1] == DONE
        assert time.monotonic() - began < 2.3  # less than the slow one is given to read anything at all
        assert eventually(lambda: in_flight() == together._running, 6)
        assert states(v1) == [State.CLIENT_SLOW, State.OK]


def test_metrics_tell_what_the_cache_did(v1: V1) -> None:
    def counted(kind: str) -> float:
        return float(metrics.cache(kind)._value.get())

    before = {kind: counted(kind) for kind in ("HIT", "COALESCED")}
    go = waits(v1)
    begun = Together(v1).begin(3, lambda: ask(v1))
    go.set()
    results(begun)
    ask(v1)

    assert counted("HIT") == before["HIT"] + 1
    assert counted("COALESCED") == before["COALESCED"] + 2
