"""Purges of what lies in Redis, and Redis itself away: calls go on, and nothing is given that was purged."""

import threading
from typing import Any

import orjson
import pytest

from completions.cache import index, stores
from completions.cache.purge import Selection, purge
from completions.errors import UnavailableError
from completions.models import CachedResponse, Project, State
from tests.factories import make_project
from tests.fakes import completion, response
from tests.own_redis import OwnRedis
from tests.surfaces import own_redis
from tests.surfaces import v1 as shared
from tests.surfaces.cached import COST, TEXT, Together, ask, cache_of, text_of_whole, waits
from tests.surfaces.own_redis import ENTRIES, NEEDED, PURGES
from tests.surfaces.v1 import MODEL, V1, frames_of, text_of
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1
server, redis = own_redis.server, own_redis.redis

pytestmark = NEEDED
SOON = 2.0  # seconds, on a machine that does other things besides: less than who waits for Redis would take


def is_found_again(v1: V1) -> bool:
    return [cache_of(ask(v1)) for _ in range(2)][1] == "HIT"


class TestPurges:
    def test_take_entry_and_row(self, v1: V1, redis: OwnRedis) -> None:
        ask(v1)

        assert purge(Selection(project_id=v1.project.pk)) == 1
        assert redis.names(ENTRIES) == []
        assert [cache_of(ask(v1)) for _ in range(2)] == ["MISS", "HIT"]

    def test_are_in_force_for_what_has_no_row_yet(self, v1: V1, redis: OwnRedis) -> None:
        """As another process sees it: it cannot know of the row that waits here."""
        ask(v1)
        stores.tell_purge(Selection(model=MODEL).told())
        assert len(redis.names(ENTRIES)) == 1
        assert cache_of(ask(v1)) == "MISS"
        assert cache_of(ask(v1)) == "HIT"

    def test_take_the_row_that_was_waiting_with_its_entry(self, v1: V1, redis: OwnRedis) -> None:
        """Else it would be given again once the purge is forgotten."""
        ask(v1)
        stores.tell_purge(Selection(project_id=v1.project.pk).told())
        index.flush()

        assert redis.names(ENTRIES) == []
        assert not CachedResponse.objects.exists()

    @pytest.mark.parametrize(
        "other", [{"project_id": 10**9}, {"provider": "other"}, {"model": "other"}, {"api_key_id": 10**9}]
    )
    def test_of_something_else_leave_it(self, v1: V1, other: dict[str, Any]) -> None:
        ask(v1)
        stores.tell_purge(Selection(**other).told())
        index.flush()

        assert cache_of(ask(v1)) == "HIT"
        assert CachedResponse.objects.count() == 1

    def test_told_at_once_are_all_told(self, v1: V1, redis: OwnRedis) -> None:
        threads = [
            threading.Thread(target=stores.tell_purge, args=({"project_id": number},)) for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        told = orjson.loads(redis.client.get(PURGES))
        assert {one["project_id"] for one in told} == set(range(20))

    @pytest.mark.parametrize(
        "told", [b"", b"\xff", b"{}", b"5", b"null", b"[1]", b'[{"at":"x"}]', b'[{"keys":5}]']
    )
    def test_that_cannot_be_read_may_have_meant_anything(self, v1: V1, redis: OwnRedis, told: bytes) -> None:
        ask(v1)
        redis.client.set(PURGES, told or b" ")

        assert cache_of(ask(v1)) == "MISS"
        assert cache_of(ask(v1)) == "HIT"

    def test_of_a_project_that_is_deleted_leave_nothing_for_its_group(self, v1: V1, redis: OwnRedis) -> None:
        ask(v1)
        other = make_project("other")
        index.flush()
        CachedResponse.objects.update(project=other)
        other.delete()

        assert redis.names(ENTRIES) == []


class TestRedisIsAway:
    @pytest.mark.parametrize("how", ["pause", "stop"])
    def test_calls_go_on_without_it_and_are_not_kept_waiting(self, v1: V1, redis: OwnRedis, how: str) -> None:
        ask(v1)
        v1.upstream.answers("Without Redis.")
        getattr(redis, how)()
        answers = [ask(v1, stream=stream) for stream in (False, True, False)]

        assert {answer.status_code for answer in answers} == {200}
        assert {cache_of(answer) for answer in answers} == {"MISS"}
        assert all(answer.elapsed.total_seconds() < SOON for answer in answers)
        assert sum(row.cost_nano_usd or 0 for row in v1.rows()) == 4 * COST

    def test_equal_calls_of_one_process_still_share_one(self, v1: V1, redis: OwnRedis) -> None:
        redis.stop()
        ask(v1, seed=1)
        v1.upstream.scripts(lambda _: [0.3, response(200, completion("Shared."))])
        v1.upstream.requests.clear()
        go = waits(v1)
        begun = Together(v1)._pool.map(lambda _: ask(v1), range(20))
        assert eventually(lambda: len(v1.upstream.requests) == 1)
        go.set()

        assert {text_of_whole(one) for one in begun} == {"Shared."}
        assert len(v1.upstream.requests) == 1

    def test_in_the_middle_of_an_answer_does_it_no_harm(self, v1: V1, redis: OwnRedis) -> None:
        go = waits(v1)
        together = Together(v1)
        [leader] = together.begin(1, lambda: ask(v1, stream=True))
        [follower] = together.begin(1, lambda: ask(v1))
        redis.stop()
        go.set()

        assert text_of(frames_of(leader.result())) == text_of_whole(follower.result()) == TEXT
        assert sorted(row.state for row in v1.rows()) == [State.COALESCED, State.OK]

    @pytest.mark.parametrize("how", ["pause", "stop"])
    def test_once_it_is_back_it_is_used_again(self, v1: V1, redis: OwnRedis, how: str) -> None:
        getattr(redis, how)()
        ask(v1)
        redis.go_on() if how == "pause" else redis.start()

        assert eventually(lambda: is_found_again(v1), 8)

    def test_a_project_stays_while_its_answers_cannot_go(self, v1: V1, redis: OwnRedis) -> None:
        other = make_project("other")
        redis.stop()
        with pytest.raises(UnavailableError):
            other.delete()

        assert Project.objects.filter(slug="other").exists()

    def test_a_purge_says_that_it_cannot_be_done(self, v1: V1, redis: OwnRedis) -> None:
        ask(v1)
        index.flush()
        redis.stop()
        with pytest.raises(UnavailableError):
            purge(Selection(project_id=v1.project.pk))

        assert CachedResponse.objects.count() == 1  # it can be tried again
