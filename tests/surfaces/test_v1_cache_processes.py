"""The cache of two processes of one hub, by Redis: what one brought the other gives; what one began, too."""

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from tests.fakes import (
    USAGE,
    FakeUpstream,
    Received,
    Step,
    chunk,
    chunked,
    completion,
    response,
    sse,
    stream_head,
)
from tests.outside import TEST_DATABASE_URL
from tests.own_redis import OwnRedis, own_redis
from tests.proofs.hub import KEY, Hub, hub_in
from tests.surfaces.own_redis import ENTRIES, LEASES, NEEDED
from tests.surfaces.v1 import DONE, HELLO, PIECES, frames_of, text_of, told
from tests.waiting import eventually

pytestmark = [pytest.mark.postgres, *NEEDED]

TEXT = "".join(PIECES)
COST = 30_000  # nano-dollars of one call: 3 tokens of output
PATIENCE = 30.0
BEARER = {"Authorization": f"Bearer {KEY}"}
Columns = tuple[Any, ...]


class Pair:
    """Processes `one` and `two` of a hub, their Redis and their upstream."""

    def __init__(self, one: Hub, two: Hub, redis: OwnRedis) -> None:
        self.one, self.two, self.redis = one, two, redis
        self.upstream: FakeUpstream
        self.calls: ThreadPoolExecutor
        self.question = ""  # of the present test: no other asks it
        self.gates: list[threading.Event] = []

    def body(self, **fields: Any) -> dict[str, Any]:
        messages = [*HELLO, {"role": "user", "content": self.question}]
        return {"model": "model", "messages": messages, "temperature": 0, "max_tokens": 100} | fields

    def ask(
        self, hub: Hub, *, lazily: bool = False, headers: dict[str, str] | None = None, **fields: Any
    ) -> requests.Response:
        return requests.post(
            f"{hub.url}/v1/chat/completions",
            json=self.body(**fields),
            headers=BEARER | (headers or {}),
            timeout=PATIENCE,
            stream=lazily,
        )

    def begin(self, hub: Hub, count: int = 1, **fields: Any) -> list["Future[requests.Response]"]:
        return [self.calls.submit(self.ask, hub, **fields) for _ in range(count)]

    def rows(self, columns: str, count: int) -> list[Columns]:
        """Of the calls of this test, once so many are final."""
        sql = f"SELECT {columns} FROM completions_completion c JOIN completions_completioncontent t "  # noqa: S608
        sql += f"ON t.completion_id = c.id WHERE t.request LIKE '%{self.question}%' AND state <> 'running'"
        assert eventually(lambda: len(self.one.query(sql)) >= count, 15), self.one.query(sql)
        return self.one.query(sql)

    def cached_rows(self) -> int:
        sql = f"SELECT count(*) FROM completions_cachedresponse WHERE request LIKE '%{self.question}%'"  # noqa: S608
        [(count,)] = self.one.query(sql)
        return int(count)

    def forget_everything(self, hub: Hub) -> None:
        answer = requests.delete(f"{hub.url}/api/cache/", headers=BEARER, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text

    def waits(self, first: int = 3) -> threading.Event:
        """The next answers: some pieces (none, where they are whole), the rest once the event is set."""
        go = threading.Event()
        self.gates.append(go)

        def script(request: Received) -> list[Step]:
            if not request.body.get("stream"):
                return [go, response(200, completion(TEXT))]
            told = [chunked(sse(chunk({"content": piece}))) for piece in PIECES]
            rest = [chunked(sse(event)) for event in (chunk({}, "stop"), chunk(None, usage=USAGE), DONE)]
            return [stream_head(), *told[:first], go, *told[first:], *rest, chunked(b"")]

        self.upstream.scripts(script)
        return go


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, FakeUpstream]]:
    name = f"llmhub_scratch_{uuid.uuid4().hex}"
    with ExitStack() as stack:
        connection = stack.enter_context(closing(psycopg.connect(TEST_DATABASE_URL, autocommit=True)))
        connection.execute(f"CREATE DATABASE {name}")
        stack.callback(connection.execute, f"DROP DATABASE {name} WITH (FORCE)")
        database = urlsplit(TEST_DATABASE_URL)._replace(path=f"/{name}").geturl()
        upstream = stack.enter_context(FakeUpstream(models=("model",)))
        redis = stack.enter_context(own_redis(tmp_path_factory.mktemp("redis")))
        folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
        one, two = (stack.enter_context(hub_in(folder, database)) for folder in folders)
        for hub in (one, two):
            hub.command = ("-m", "tests.surfaces.cache_serve")
            hub.environment |= {"REDIS_URL": redis.url, "LLMHUB_DRAIN_SECONDS": "1"}
        one.set_up(upstream.url)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Hub.start, (one, two)))  # at once: it takes a while
        yield Pair(one, two, redis), upstream


@pytest.fixture
def pair(processes: tuple[Pair, FakeUpstream]) -> Iterator[Pair]:
    made, upstream = processes
    for hub in (made.one, made.two):
        if hub._process is None:
            hub.start()
    upstream.requests.clear()
    upstream._scripts.clear()
    made.upstream, made.question = upstream, f"question {uuid.uuid4().hex}"
    with ThreadPoolExecutor(100) as made.calls:
        yield made
        for gate in made.gates:
            gate.set()
    made.one.await_rest(10)


def cache_of(answer: requests.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-llmhub-cache"]


def text(answer: requests.Response) -> str:
    if answer.headers["content-type"] == "text/event-stream":
        return text_of(frames_of(answer))
    return str(answer.json()["choices"][0]["message"]["content"])


def first_pieces(answer: requests.Response, count: int) -> Iterator[bytes]:
    """The rest of a stream, of which so many frames were read."""
    lines = answer.iter_lines(chunk_size=1)
    for _ in range(count):
        while not next(lines).startswith(b"data: "):
            pass
    return lines


def results(begun: Sequence["Future[requests.Response]"]) -> list[requests.Response]:
    return [one.result(PATIENCE) for one in begun]


def until(is_so: Callable[[], bool]) -> None:
    assert eventually(is_so, 10)


def test_what_one_brought_the_other_gives_whole_and_streamed(pair: Pair) -> None:
    first = pair.ask(pair.one)
    others = [pair.ask(pair.two), pair.ask(pair.two, stream=True), pair.ask(pair.one)]

    assert [cache_of(answer) for answer in (first, *others)] == ["MISS", "HIT", "HIT", "HIT"]
    assert {text(answer) for answer in (first, *others)} == {"Hello!"}
    assert first.json() == others[0].json()
    assert len(pair.upstream.requests) == 1
    rows = pair.rows("cache, cost_nano_usd, saved_nano_usd", 4)
    assert sorted(rows) == [("HIT", 0, COST)] * 3 + [("MISS", COST, 0)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_equal_calls_over_both_are_one_upstream_call(pair: Pair, stream: bool) -> None:
    go = pair.waits()
    begun = [*pair.begin(pair.one, 50, stream=stream), *pair.begin(pair.two, 50, stream=stream)]
    pair.upstream.wait_for(1)
    until(lambda: len(pair.redis.names(LEASES)) == 1)
    go.set()

    assert {text(answer) for answer in results(begun)} == {TEXT}
    assert len(pair.upstream.requests) == 1
    rows = pair.rows("state, cost_nano_usd", 100)
    assert len(rows) == 100
    assert sum(cost or 0 for _, cost in rows) == COST
    assert {state for state, _ in rows} <= {"ok", "coalesced"}
    assert [state for state, cost in rows if cost] == ["ok"]


def test_a_purge_is_in_force_on_both_at_once_though_no_row_is_written_yet(pair: Pair) -> None:
    """And stays in force once it is: the row goes with its entry."""
    pair.ask(pair.one)
    pair.forget_everything(pair.two)
    refused = [pair.ask(hub, headers={"x-llmhub-cache": "only"}) for hub in (pair.one, pair.two)]

    assert {(answer.status_code, told(answer)["code"]) for answer in refused} == {(504, "cache_miss")}
    time.sleep(1.5)  # what waited at the other process has been written, and looked at
    assert pair.cached_rows() == 0
    assert pair.redis.names(ENTRIES) == []
    assert [cache_of(pair.ask(hub)) for hub in (pair.one, pair.two)] == ["MISS", "HIT"]


def test_a_leader_who_hangs_up_leaves_its_call_to_the_other_process(pair: Pair) -> None:
    go = pair.waits()
    leader = pair.ask(pair.one, lazily=True, stream=True)
    first_pieces(leader, 3)
    others = pair.begin(pair.two, 20, stream=True)
    until(lambda: in_flight(pair.two) == 20)
    leader.close()
    go.set()

    assert {text(answer) for answer in results(others)} == {TEXT}
    assert len(pair.upstream.requests) == 2
    assert sorted(state for (state,) in pair.rows("state", 21)) == ["client_gone", *["coalesced"] * 19, "ok"]


def test_a_leader_that_is_killed_is_waited_for_no_longer_than_its_lease(pair: Pair) -> None:
    go = pair.waits()
    leader = pair.ask(pair.one, lazily=True, stream=True)
    rest = first_pieces(leader, 3)
    others = [*pair.begin(pair.two, 50, stream=True), *pair.begin(pair.two, 49)]
    until(lambda: in_flight(pair.two) == 99)
    pair.one.kill()
    go.set()
    with pytest.raises(requests.RequestException):
        list(rest)

    answers = results(others)
    assert {text(answer) for answer in answers} == {TEXT}
    assert sorted(map(cache_of, answers)) == ["COALESCED"] * 98 + ["MISS"]
    assert len(pair.upstream.requests) == 2
    states = [state for (state,) in pair.rows("state", 99)]
    assert sorted(states) == ["coalesced"] * 98 + ["ok"]
    until(pair.two.is_at_rest)  # the row of the dead process's call is settled, too
    assert not pair.two.query("SELECT 1 FROM completions_budgetwindow WHERE held_nano <> 0")


def test_who_waits_for_the_other_process_when_its_own_stops_is_told_so(pair: Pair) -> None:
    go = pair.waits()
    leader = pair.ask(pair.one, lazily=True, stream=True)
    rest = first_pieces(leader, 3)
    waiting = pair.begin(pair.two, 3)
    until(lambda: in_flight(pair.two) == 3)
    pair.two.signal(signal.SIGTERM)

    answers = results(waiting)
    assert {(answer.status_code, told(answer)["code"]) for answer in answers} == {(503, "shutting_down")}
    pair.two.wait(15)
    go.set()
    assert any(b"[DONE]" in line for line in rest)
    assert sorted(state for (state,) in pair.rows("state", 4)) == ["ok", *["shutdown"] * 3]


def in_flight(hub: Hub) -> int:
    """Calls that run there, or wait for another process, as its metrics tell."""
    text = requests.get(f"{hub.url}/metrics", timeout=PATIENCE).text
    [line] = [line for line in text.splitlines() if line.startswith("llmhub_in_flight ")]
    return int(float(line.split()[1]))
