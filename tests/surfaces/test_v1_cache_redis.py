"""The cache in Redis: what lies there, what another process leaves there, and calls that go without it."""

import secrets
import time
import uuid
from typing import Any

import pytest

from completions.cache import flights
from completions.cache.entry import Entry, packed, unpacked
from completions.models import Completion, State
from providers.types import Usage
from tests.fakes import completion
from tests.own_redis import OwnRedis
from tests.surfaces import own_redis
from tests.surfaces import v1 as shared
from tests.surfaces.cached import (
    COST,
    Together,
    ask,
    cache_of,
    caller,
    in_flight,
    results,
    text_of_whole,
    waits,
)
from tests.surfaces.own_redis import ENTRIES, LEASES, NEEDED, only
from tests.surfaces.v1 import EMBEDDINGS, MODEL, V1, frames_of, text_of
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1
server, redis = own_redis.server, own_redis.redis

pytestmark = NEEDED


class TestWhatLiesThere:
    def test_answers_whole_and_as_a_stream(self, v1: V1, redis: OwnRedis) -> None:
        answers = [ask(v1), ask(v1), ask(v1, stream=True)]

        assert [cache_of(answer) for answer in answers] == ["MISS", "HIT", "HIT"]
        assert answers[0].json() == answers[1].json()
        assert text_of(frames_of(answers[2])) == "Hello!"
        assert len(v1.upstream.requests) == 1
        row, _, miss = v1.rows()
        assert (row.cache, row.cost_nano_usd, row.saved_nano_usd, miss.cost_nano_usd) == (
            "HIT",
            0,
            COST,
            COST,
        )

    def test_ends_with_its_time(self, v1: V1, redis: OwnRedis) -> None:
        v1.set(v1.model, cache_ttl_seconds=100, cache_stale_seconds=50)
        ask(v1)

        assert 135 <= redis.client.ttl(only(redis)) <= 150
        assert redis.names(LEASES) == []  # the lease went with its call

    def test_is_found_input_by_input(self, v1: V1, redis: OwnRedis) -> None:
        def embed(*asked: str) -> Any:
            data = [{"object": "embedding", "index": at, "embedding": [at]} for at in range(len(asked))]
            v1.upstream.refuses(200, {"object": "list", "data": data, "usage": {"prompt_tokens": len(asked)}})
            return v1.post(EMBEDDINGS, {"model": MODEL, "input": list(asked)})

        assert cache_of(embed("a", "b")) == "MISS"
        assert cache_of(embed("b", "a")) == "HIT"
        assert len(redis.names(ENTRIES)) == 2

    @pytest.mark.parametrize(
        "value",
        [
            *(b"", b"\x00\xff", b"{}", b"[]", b"null", b"\x80\x05K\x05.", b"{" * 100_000, b'{"format":2}'),
            b'{"format":1,"body":{"choices":[]}}',
        ],
    )
    def test_is_a_miss_if_it_is_corrupt(self, v1: V1, redis: OwnRedis, value: bytes) -> None:
        ask(v1)
        name = only(redis)
        redis.client.set(name, value)

        assert cache_of(ask(v1)) == "MISS"
        assert unpacked(redis.client.get(name)) is not None
        assert cache_of(ask(v1)) == "HIT"

    def test_is_a_miss_if_it_is_of_another_kind(self, v1: V1, redis: OwnRedis) -> None:
        ask(v1)
        name = only(redis)
        redis.client.delete(name)
        redis.client.rpush(name, "a list")

        assert cache_of(ask(v1)) == "MISS"
        assert cache_of(ask(v1)) == "HIT"

    def test_may_be_evicted(self, v1: V1, redis: OwnRedis) -> None:
        redis.client.config_set("maxmemory-policy", "allkeys-lru")
        redis.client.config_set("maxmemory", redis.client.info("memory")["used_memory"] + 300_000)
        v1.upstream.answers("x" * 20_000)
        first = [ask(v1, seed=number) for number in range(40)]

        assert {cache_of(answer) for answer in first} == {"MISS"}
        assert 0 < len(redis.names(ENTRIES)) < 40
        again = [ask(v1, seed=number) for number in range(40)]
        assert {answer.status_code for answer in again} == {200}
        assert "MISS" in map(cache_of, again)

    def test_that_cannot_be_written_does_no_harm(self, v1: V1, redis: OwnRedis) -> None:
        redis.client.config_set("maxmemory-policy", "noeviction")
        redis.client.config_set("maxmemory", 1)
        answers = [ask(v1) for _ in range(3)]

        assert {answer.status_code for answer in answers} == {200}
        assert {cache_of(answer) for answer in answers} == {"MISS"}


def left(v1: V1, text: str, *, stored: float = 0.0) -> Entry:
    """An entry as another process of this hub would leave it."""
    now = time.time()
    return Entry(
        body=completion(text),
        usage=Usage(9, 3),
        cost_nano=COST,
        finish_reason="stop",
        call=uuid.uuid4(),
        provider="upstream",
        public_model=MODEL,
        project_id=v1.project.pk,
        api_key_id=None,
        stored=now + stored,
        fresh_until=now + 60,
        stale_until=now + 60,
    )


class TestAnotherProcess:
    """What it writes into Redis is written here by the test. See test_v1_cache_processes for real ones."""

    @pytest.fixture
    def name(self, v1: V1, redis: OwnRedis) -> str:
        """Of the entry of the usual call, which is not there."""
        ask(v1)
        found = only(redis)
        redis.client.delete(found)
        v1.upstream.requests.clear()
        return found

    def rows(self, v1: V1) -> list[Completion]:
        """Without that of the call that told the name."""
        return v1.rows()[:-1]

    def lease(self, redis: OwnRedis, name: str, milliseconds: int = 30_000) -> str:
        lease = name.replace("answer:", "answer-lease:")
        redis.client.set(lease, secrets.token_hex(8), px=milliseconds)
        return lease

    @pytest.mark.parametrize("stream", [True, False])
    def test_that_makes_the_call_is_waited_for_and_its_answer_given(
        self, v1: V1, redis: OwnRedis, name: str, stream: bool
    ) -> None:
        lease = self.lease(redis, name)
        begun = Together(v1).begin(3, lambda: ask(v1, stream=stream))
        entry = left(v1, "Theirs.")
        redis.client.set(name, packed(entry))
        redis.client.delete(lease)

        answers = results(begun)
        texts = {text_of(frames_of(one)) if stream else text_of_whole(one) for one in answers}
        assert texts == {"Theirs."}
        assert {cache_of(answer) for answer in answers} == {"COALESCED"}
        assert v1.upstream.requests == []
        rows = self.rows(v1)
        assert {(row.state, row.cost_nano_usd, row.cached_from) for row in rows} == {
            (State.COALESCED, 0, entry.call)
        }
        assert {row.saved_nano_usd for row in rows} == {COST}

    def test_that_died_is_waited_for_no_longer_than_its_lease(
        self, v1: V1, redis: OwnRedis, name: str
    ) -> None:
        self.lease(redis, name, milliseconds=700)
        began = time.monotonic()
        answer = ask(v1)

        assert time.monotonic() - began >= 0.5
        assert (cache_of(answer), text_of_whole(answer)) == ("MISS", "Hello!")
        assert redis.names(LEASES) == []

    def test_that_failed_leaves_the_call_to_the_next(self, v1: V1, redis: OwnRedis, name: str) -> None:
        """Its lease is over, and there is no answer: one of ours makes the call, for all of ours."""
        lease = self.lease(redis, name)
        begun = Together(v1).begin(5, lambda: ask(v1))
        redis.client.delete(lease)

        assert sorted(map(cache_of, results(begun))) == ["COALESCED"] * 4 + ["MISS"]
        assert len(v1.upstream.requests) == 1

    def test_that_left_an_old_answer_does_not_serve_who_wants_a_fresh_one(
        self, v1: V1, redis: OwnRedis, name: str
    ) -> None:
        redis.client.set(name, packed(left(v1, "Old.", stored=-30)))
        lease = self.lease(redis, name)
        [one] = Together(v1).begin(1, lambda: ask(v1, {"x-llmhub-cache": "refresh"}))
        redis.client.delete(lease)

        assert text_of_whole(one.result()) == "Hello!"

    def test_takes_no_lease_that_is_held(
        self, v1: V1, redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is renewed for as long as the call runs."""
        monkeypatch.setattr(flights, "LEASE_SECONDS", 0.6)
        go = waits(v1)
        leader = caller(v1)
        leader.frames(2)
        lease, until = only(redis, LEASES), time.monotonic() + 1.5
        while time.monotonic() < until:
            assert redis.client.pttl(lease) > 0
            time.sleep(0.02)
        go.set()
        while leader.frame() is not None:
            pass

        assert eventually(lambda: redis.names(LEASES) == [])

    def test_keeps_its_lease_when_ours_is_over(self, v1: V1, redis: OwnRedis) -> None:
        go = waits(v1)
        leader = caller(v1)
        leader.frames(2)
        lease = only(redis, LEASES)
        redis.client.set(lease, "of another process by now")
        go.set()
        while leader.frame() is not None:
            pass

        assert eventually(lambda: v1.row().state == State.OK)
        assert redis.client.get(lease) == b"of another process by now"

    def test_is_not_waited_for_by_who_has_left(self, v1: V1, redis: OwnRedis, name: str) -> None:
        lease = self.lease(redis, name)
        before = in_flight()
        one = caller(v1)
        assert eventually(lambda: in_flight() == before + 1)
        one.leave()

        assert eventually(lambda: in_flight() == before)
        assert [row.state for row in self.rows(v1)] == [State.CLIENT_GONE]
        redis.client.delete(lease)
        assert cache_of(ask(v1)) == "MISS"
        assert len(v1.upstream.requests) == 1
