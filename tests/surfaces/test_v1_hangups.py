"""Callers who go away, at any moment of a call: one row, the right money, and nothing runs on for nobody."""

import http.client
import time
from typing import Any

import pytest

from completions import tokens
from completions.models import Completion, State
from tests.fakes import (
    USAGE,
    End,
    Step,
    chunk,
    chunked,
    completion,
    response,
    silent_url,
    sse,
    stream_head,
)
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import (
    CHAT,
    COMPLETIONS,
    DONE,
    EMBEDDINGS,
    MODEL,
    PIECES,
    PROMPT,
    V1,
    Caller,
    cost,
    text_of,
)
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

STREAM: list[Any] = [
    chunk({"role": "assistant", "content": ""}),
    *[chunk({"content": piece}) for piece in PIECES],
    chunk({}, "stop"),
    chunk(None, usage=USAGE),
    DONE,
]
FINISHED, REPORTED, ALL = len(STREAM) - 2, len(STREAM) - 1, len(STREAM)  # so many events came
ASKED = {"include_usage": True}


def billed(row: Completion) -> tuple[Any, ...]:
    return row.prompt_tokens, row.completion_tokens, row.usage_source, row.cost_nano_usd


def counted(output: int) -> tuple[Any, ...]:
    return PROMPT, output, "counted", cost(PROMPT, output)


REPORT = (9, 3, "provider", cost(9, 3))


@pytest.fixture
def one_at_a_time(v1: V1) -> None:
    """The key may have one call running: whether its slot is free again, the next call tells."""
    v1.set(v1.api_key, concurrent_calls=1)


def assert_free(v1: V1) -> None:
    """The key's only slot is there for the next call, which is answered."""
    v1.upstream._scripts.clear()
    assert eventually(lambda: v1.chat().status_code == 200, seconds=1)
    Completion.objects.filter(pk=v1.rows()[0].pk).delete()


def assert_left(v1: V1, state: State = State.CLIENT_GONE) -> Completion:
    """The upstream is let go within a second, and the one row is final."""
    assert v1.upstream.requests[0].wait_gone(1)
    row = v1.row()
    assert (row.state, row.attempts) == (state, 1)
    return row


@pytest.mark.usefixtures("one_at_a_time")
class TestTheCallerLeaves:
    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    def test_before_the_upstream_answered(self, v1: V1, stream: bool, reset: bool) -> None:
        v1.upstream.hangs("headers")
        caller = Caller(v1, stream=stream, max_tokens=1000)
        v1.upstream.wait_for()

        caller.leave(reset=reset)

        row = assert_left(v1)
        assert billed(row) == counted(0)
        assert (row.cost_nano_usd or 0) < row.hold_nano
        assert_free(v1)

    def test_in_the_middle_of_a_whole_answer(self, v1: V1) -> None:
        half = response(200, completion())[:100]
        v1.upstream.sends([half], end=End.HOLD)
        caller = Caller(v1, stream=False)
        v1.upstream.wait_for()

        caller.leave()

        assert billed(assert_left(v1)) == counted(0)
        assert_free(v1)

    @pytest.mark.parametrize(
        ("path", "asked"), [(COMPLETIONS, {"prompt": "Hello"}), (EMBEDDINGS, {"input": "Hello"})]
    )
    def test_whatever_was_asked_for(self, v1: V1, path: str, asked: dict[str, Any]) -> None:
        v1.upstream.hangs("headers")
        caller = Caller(v1, path, stream=False, **asked)
        v1.upstream.wait_for()

        caller.leave()

        assert assert_left(v1).prompt_tokens == 1
        assert_free(v1)

    @pytest.mark.parametrize("came", range(ALL), ids=lambda count: f"after {count} events")
    def test_at_every_moment_of_a_stream(self, v1: V1, came: int) -> None:
        """The upstream has sent `came` events and is silent; the caller has read what there is to read."""
        v1.upstream.events(*STREAM[:came], end=End.HOLD)
        caller = Caller(v1, stream_options=ASKED, max_tokens=1000)
        pieces = min(max(came - 1, 0), len(PIECES))
        frames = caller.frames(min(came, FINISHED)) if pieces else []
        v1.upstream.wait_for()
        assert eventually(lambda: v1.upstream.sent >= len(_bytes_of(came)))

        caller.leave()

        row = assert_left(v1)
        assert text_of(frames) == "".join(PIECES[:pieces])
        assert billed(row) == (REPORT if came == REPORTED else counted(pieces))
        assert row.finish_reason == ("stop" if came >= FINISHED else "")
        assert_free(v1)

    def test_right_after_done(self, v1: V1) -> None:
        v1.upstream.events(*STREAM, end=End.HOLD)  # the end of the body never comes
        caller = Caller(v1)
        while caller.frame() != DONE:
            pass

        caller.leave()

        row = v1.row()
        assert (row.state, billed(row)) == (State.OK, REPORT)
        assert v1.upstream.requests[0].wait_gone(1)
        assert_free(v1)

    @pytest.mark.parametrize("count", range(ALL + 1), ids=lambda count: f"after {count} frames")
    def test_while_the_upstream_goes_on(self, v1: V1, count: int) -> None:
        """The caller reads `count` frames of a stream that comes all the while, and is off."""
        v1.upstream.events(*STREAM, delay=0.01)
        caller = Caller(v1, stream_options=ASKED)
        frames = caller.frames(count) if count else []
        v1.upstream.wait_for()

        caller.leave(reset=bool(count % 2))

        row = v1.row()
        if DONE in frames:
            assert row.state == State.OK
        if row.state == State.OK:
            assert billed(row) == REPORT
        else:
            assert row.state == State.CLIENT_GONE
            output = row.completion_tokens or 0
            read = tokens.count_text(text_of(frames), MODEL).count
            assert billed(row) == REPORT or (billed(row) == counted(output) and read <= output <= len(PIECES))
        assert len(v1.upstream.requests) == 1
        assert_free(v1)

    def test_the_moment_it_has_asked(self, v1: V1) -> None:
        """Whether the hub began or not: what the upstream was asked has a row, and the slot is free."""
        whole: list[Step] = [0.05, response(200, completion())]
        v1.upstream.scripts(lambda request: _slowly() if request.body.get("stream") else whole)
        for number in range(20):
            caller = Caller(v1, stream=bool(number % 2))
            time.sleep(number / 5000)
            caller.leave(reset=bool(number % 3))
            assert eventually(lambda: not Completion.objects.filter(state=State.RUNNING).exists())

        rows = v1.rows()
        assert {row.state for row in rows} <= {State.CLIENT_GONE, State.OK}
        assert len(v1.upstream.requests) <= sum(row.attempts for row in rows)
        assert_free(v1)

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    def test_while_the_upstream_is_being_connected_to(self, v1: V1, stream: bool) -> None:
        v1.set(v1.provider, base_url=v1.during.enter_context(silent_url()))
        caller = Caller(v1, stream=stream)
        assert eventually(lambda: Completion.objects.filter(state=State.RUNNING).exists())
        time.sleep(0.05)

        caller.leave()

        assert eventually(lambda: not Completion.objects.filter(state=State.RUNNING).exists(), seconds=1)
        row = v1.row()
        assert row.state == State.CLIENT_GONE
        assert row.cost_nano_usd == 0  # nothing was sent, as where a connection is refused or times out

    def test_between_two_tries(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("providers.dispatch.PAUSE_SECONDS", (5.0, 5.0))
        v1.upstream.refuses(503)
        caller = Caller(v1)
        assert eventually(lambda: v1.upstream.sent > 0)
        time.sleep(0.05)  # until the hub has read it

        caller.leave()

        assert eventually(lambda: not Completion.objects.filter(state=State.RUNNING).exists(), seconds=1)
        row = v1.row()
        assert (row.state, row.attempts) == (State.CLIENT_GONE, 1)
        assert row.cost_nano_usd == 0  # it was refused
        assert len(v1.upstream.requests) == 1
        assert_free(v1)

    def test_before_its_request_was_whole(self, v1: V1) -> None:
        connection = http.client.HTTPConnection(v1.hub.host, v1.hub.port)
        connection.putrequest("POST", CHAT)
        connection.putheader("Authorization", f"Bearer {v1.key}")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b'{"model": ')
        connection.close()

        assert v1.chat().status_code == 200
        assert len(v1.rows()) == len(v1.upstream.requests) == 1


def _slowly() -> list[Step]:
    """STREAM, bit by bit."""
    bits = [(0.01, chunked(sse(event))) for event in STREAM]
    return [stream_head(), *[step for bit in bits for step in bit], chunked(b"")]


def _bytes_of(came: int) -> bytes:
    """What the upstream sends before it falls silent."""
    return stream_head() + b"".join(chunked(sse(event)) for event in STREAM[:came])


def test_a_hundred_callers_leave_at_once(v1: V1) -> None:
    v1.upstream.events(*STREAM[:4], end=End.HOLD)
    callers = [Caller(v1) for _ in range(100)]
    for caller in callers:
        assert text_of(caller.frames(4)) == "one two three"

    for caller in callers:
        caller.leave()

    assert all(request.wait_gone(1) for request in v1.upstream.requests)
    rows = v1.rows()
    assert len(rows) == 100
    assert {(row.state, *billed(row)) for row in rows} == {(State.CLIENT_GONE, *counted(3))}
    assert v1.budget.windows.get().spent_nano == 100 * cost(PROMPT, 3)


def test_one_who_leaves_takes_nobody_along(v1: V1) -> None:
    v1.upstream.events(*STREAM, delay=0.03)
    stays, leaves = Caller(v1), Caller(v1)
    leaves.frames(2)

    leaves.leave()

    frames = list(iter(stays.frame, None))
    assert (text_of(frames), frames[-1]) == ("".join(PIECES), DONE)
    assert sorted(row.state for row in v1.rows()) == [State.CLIENT_GONE, State.OK]
