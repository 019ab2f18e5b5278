"""However a call comes (`/v1`, `/api`, websocket, Python), what is cached of an equal one answers it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import requests
from django.contrib.auth import get_user_model

from completions.cache import index
from completions.errors import CacheMissError, InvalidRequestError
from completions.models import CachedResponse
from completions.service import LLMService
from completions.types import CompletionRequest, Delta, Done, LLMResponse, Started, StreamingCallbacks
from tests.surfaces import ws as shared
from tests.surfaces.api import HELLO, assert_error, bearer, events_of
from tests.surfaces.cached import Together, ask, cache_of, results, text_of_whole, waits
from tests.surfaces.v1 import MODEL, PATIENCE, PIECES, V1, checked, frames_of
from tests.surfaces.v1 import text_of as text_of_frames
from tests.surfaces.ws import connect, cookie, text_of
from tests.waiting import eventually

transactional_db, hub = shared.transactional_db, shared.hub
v1, nothing_left = shared.v1, shared.nothing_left

CSRF = "c" * 32
REQUEST = CompletionRequest(HELLO, MODEL, {"temperature": 0})


class Told(NamedTuple):
    """What a way of calling the hub tells."""

    cache: str
    text: str


def api(
    v1: V1, headers: dict[str, str] | None = None, *, stream: bool = False, session: bool = False
) -> requests.Response:
    """`POST /api/completions/` with a key, or as a person who is signed in, which is another way through."""
    given = dict(headers or {})
    if session:
        person, _ = get_user_model().objects.get_or_create(username="grace")
        v1.project.members.add(person)
        given |= {"Cookie": f"{cookie(person)}; csrftoken={CSRF}", "X-CSRFToken": CSRF}
    else:
        given |= bearer(v1.key)
    body = {"model": MODEL, "messages": HELLO, "config": {"temperature": 0}, "stream": stream}
    return requests.post(
        f"{v1.hub.url}/api/completions/", json=body, headers=given, stream=stream, timeout=PATIENCE
    )


def v1_whole(v1: V1) -> Told:
    answer = ask(v1)
    return Told(cache_of(answer), text_of_whole(answer))


def v1_stream(v1: V1) -> Told:
    answer = ask(v1, stream=True)
    return Told(cache_of(answer), text_of_frames(frames_of(answer)))


def api_whole(v1: V1, *, session: bool = False) -> Told:
    answer = api(v1, session=session)
    body = answer.json()
    assert body["metadata"]["cached"] is (cache_of(answer) == "HIT")
    return Told(cache_of(answer), body["content"])


def api_stream(v1: V1, *, session: bool = False) -> Told:
    answer = api(v1, session=session, stream=True)
    events = list(events_of(answer))
    text = "".join(event.data["content"] for event in events if event.name == "delta")
    assert events[-1].data["content"] == text
    return Told(cache_of(answer), text)


def websocket(v1: V1) -> Told:
    socket = connect(v1)
    socket.start("c1", temperature=0)
    frames = socket.rest()
    assert frames[-1]["type"] == "done", frames[-1]
    return Told(frames[0]["cache"], text_of(frames))


def told(response: LLMResponse) -> Told:
    assert response.metadata.cached is (response.metadata.cache == "HIT")
    return Told(response.metadata.cache, response.content)


def python(v1: V1) -> Told:
    return told(LLMService(project=v1.project.slug).complete(REQUEST))


def python_stream(v1: V1) -> Told:
    tokens: list[str] = []
    completed: list[LLMResponse] = []
    callbacks = StreamingCallbacks(tokens.append, completed.append, lambda error: None)
    response = LLMService(project=v1.project.slug).complete_streaming(REQUEST, callbacks)
    assert completed == [response]
    assert "".join(tokens) == response.content
    return told(response)


Way = Callable[[V1], Told]
OVER_HTTP: dict[str, Way] = {
    "v1": v1_whole,
    "v1 stream": v1_stream,
    "api": api_whole,
    "api stream": api_stream,
    "session": lambda v1: api_whole(v1, session=True),
    "session stream": lambda v1: api_stream(v1, session=True),
    "websocket": websocket,
}
WAYS = OVER_HTTP | {"python": python, "python stream": python_stream}


@pytest.mark.parametrize("first", WAYS)
def test_what_came_by_one_way_answers_by_every_other(v1: V1, first: str) -> None:
    brought = WAYS[first](v1)
    given = {name: way(v1) for name, way in WAYS.items()}

    assert brought == Told("MISS", "Hello!")
    assert given == {name: Told("HIT", "Hello!") for name in WAYS}
    assert len(v1.upstream.requests) == 1
    rows = v1.rows()
    assert {row.cached_from for row in rows[:-1]} == {rows[-1].pk}
    assert {row.surface for row in rows} == {"v1", "api", "ws", "python"}
    index.flush()
    assert CachedResponse.objects.get().hits == len(WAYS)


def test_calls_by_every_way_at_once_share_one_upstream_call(v1: V1) -> None:
    go = waits(v1)
    together = Together(v1)
    begun = [one for way in OVER_HTTP.values() for one in together.begin(1, partial(way, v1))]
    go.set()

    told = results(begun)
    assert [one.cache for one in told] == ["MISS"] + ["COALESCED"] * (len(OVER_HTTP) - 1)
    assert {one.text for one in told} == {"".join(PIECES)}
    assert len(v1.upstream.requests) == 1
    assert len(v1.rows()) == len(OVER_HTTP)


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_api_says_how_old_an_answer_is_and_takes_a_word_on_it(v1: V1, session: bool, stream: bool) -> None:
    def call(**headers: str) -> requests.Response:
        answer = api(v1, headers, session=session, stream=stream)
        assert answer.content  # it has ended
        return answer

    first, kept = call(), call()
    anew, off = call(**{"x-llmhub-cache": "refresh"}), call(**{"Cache-Control": "no-store"})

    assert [cache_of(answer) for answer in (first, kept, anew, off)] == ["MISS", "HIT", "MISS", "BYPASS"]
    assert int(kept.headers["age"]) >= 0
    assert "age" not in first.headers
    if not stream:
        assert kept.headers["x-llmhub-cost-usd"] == "0"
        assert kept.json()["tokens"] == anew.json()["tokens"]


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_api_refuses_what_is_not_there_and_what_it_does_not_understand(
    v1: V1, caplog: pytest.LogCaptureFixture, session: bool, stream: bool
) -> None:
    def call(word: str) -> requests.Response:
        return api(v1, {"x-llmhub-cache": word}, session=session, stream=stream)

    assert_error(call("only"), 504, "CACHE_MISS")
    assert call("only").headers["x-llmhub-cache"] == "MISS"
    assert_error(call("perhaps"), 400, "INVALID_REQUEST")
    assert v1.upstream.requests == []
    caplog.clear()  # Django itself says that it answered 504


class TestWebsocket:
    def test_a_cached_answer_is_a_stream_as_any_other(self, v1: V1) -> None:
        v1.upstream.answers("word " * 200)
        ask(v1)
        socket = connect(v1)
        socket.start("c1", temperature=0)
        started, *deltas, usage, done = socket.rest()

        assert started["cache"] == "HIT"
        assert "".join(frame["content"] for frame in deltas) == "word " * 200
        assert (usage["prompt_tokens"], usage["cost_usd"]) == (9, "0")
        assert done["finish_reason"] == "stop"
        assert [frame["seq"] for frame in (started, *deltas, usage, done)] == list(range(len(deltas) + 3))

    def test_it_can_be_resumed(self, v1: V1) -> None:
        ask(v1)
        socket = connect(v1)
        socket.start("c1", temperature=0)
        frames = socket.rest()
        socket.leave()
        again = connect(v1)
        again.resume(frames[0]["stream"], last_seq=0)

        assert again.rest() == frames[1:]

    def test_a_start_that_wants_nothing_else_is_refused(self, v1: V1) -> None:
        socket = connect(v1)
        request = {"model": MODEL, "messages": HELLO, "temperature": 0}
        socket.say("start", id="c1", request=request, cache="only")
        assert checked(socket.hear()["error"])["code"] == "cache_miss"
        socket.say("start", id="c2", request=request, cache="on", cache_ttl_seconds=60)
        assert socket.rest("c2")[0]["cache"] == "MISS"
        socket.say("start", id="c3", request=request, cache="only")
        assert socket.rest("c3")[0]["cache"] == "HIT"

    def test_a_cancelled_follower_leaves_the_others(self, v1: V1) -> None:
        go = waits(v1)
        together = Together(v1)
        [leader] = together.begin(1, lambda: ask(v1, stream=True))
        socket = connect(v1)
        socket.start("c1", temperature=0)
        assert socket.hear()["cache"] == "COALESCED"
        socket.cancel("c1")
        assert socket.rest()[-1]["type"] == "cancelled"
        go.set()

        assert text_of_frames(frames_of(leader.result())) == "".join(PIECES)
        assert eventually(lambda: sorted(row.state for row in v1.rows()) == ["cancelled", "ok"])

    def test_a_cancelled_leader_does_so_too(self, v1: V1) -> None:
        go = waits(v1)
        socket = connect(v1)
        socket.start("c1", temperature=0)
        assert socket.hear()["cache"] == "MISS"
        [follower] = Together(v1).begin(1, lambda: ask(v1))
        socket.cancel("c1")
        assert socket.rest()[-1]["type"] == "cancelled"
        go.set()

        assert text_of_whole(follower.result()) == "".join(PIECES)
        assert len(v1.upstream.requests) == 1


class TestPython:
    def test_a_request_says_that_it_wants_a_fresh_answer_and_how_long_it_is_kept(self, v1: V1) -> None:
        v1.upstream.answers("Old.").answers("New.")
        ask(v1)
        service = LLMService(project=v1.project.slug)
        fresh = CompletionRequest(HELLO, MODEL, {"temperature": 0}, cache="refresh", cache_ttl_seconds=60)

        assert told(service.complete(fresh)) == Told("MISS", "New.")
        assert told(service.complete(REQUEST)) == Told("HIT", "New.")
        index.flush()
        row = CachedResponse.objects.get()
        assert 50 <= (row.expires_at - row.created_at).total_seconds() <= 60

    def test_a_request_may_want_nothing_but_what_is_there(self, v1: V1) -> None:
        service = LLMService(project=v1.project.slug)
        only: dict[str, Any] = {
            "messages": HELLO,
            "model": MODEL,
            "config": {"temperature": 0},
            "cache": "only",
        }

        with pytest.raises(CacheMissError):
            service.complete(only)
        service.complete(REQUEST)
        assert told(service.complete(only)) == Told("HIT", "Hello!")
        assert len(v1.upstream.requests) == 1

    @pytest.mark.parametrize(
        "wish", [{"cache": "perhaps"}, {"cache_ttl_seconds": 0}, {"cache_ttl_seconds": "9"}]
    )
    def test_a_wish_that_cannot_be_understood_is_refused(self, v1: V1, wish: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequestError, match="cache"):
            LLMService(project=v1.project.slug).complete({"messages": HELLO, "model": MODEL, **wish})

    def test_the_events_of_a_cached_answer_are_those_of_any(self, v1: V1) -> None:
        ask(v1)

        async def events() -> list[Any]:
            return [event async for event in LLMService(project=v1.project.slug).astream(REQUEST)]

        started, *deltas, done = asyncio.run(events())
        assert isinstance(started, Started)
        assert (started.cache, started.attempts) == ("HIT", 0)
        assert all(isinstance(one, Delta) for one in deltas)
        assert isinstance(done, Done)
        assert done.response.metadata.cost == 0
        assert done.response.message == {"role": "assistant", "content": "Hello!"}
