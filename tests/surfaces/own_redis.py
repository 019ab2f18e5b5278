"""A hub that uses a Redis of its own: fixtures for a module of tests."""

from collections.abc import Iterator

import pytest
from django.test import override_settings

from completions.cache import stores
from llmhub.environment import cache
from tests.own_redis import PROGRAM, OwnRedis, own_redis
from tests.surfaces.v1 import V1
from tests.waiting import eventually

NEEDED = [
    pytest.mark.redis,
    pytest.mark.skipif(
        PROGRAM is None, reason="no redis-server here: a Redis of one's own cannot be stopped"
    ),
]
PAUSE_SECONDS = 0.2  # before the hub asks again whether Redis is back
ENTRIES, LEASES, PURGES = "llmhub:1:answer:*", "llmhub:1:answer-lease:*", "llmhub:1:answer-purges"


def only(redis: OwnRedis, pattern: str = ENTRIES) -> str:
    [name] = redis.names(pattern)
    return name


# --- fixtures: a module of tests takes them by name, beside those of tests.surfaces.v1


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    """The Redis of the hub of this module."""
    if PROGRAM is None:
        pytest.skip("no redis-server here")
    with (
        own_redis(tmp_path_factory.mktemp("redis")) as made,
        override_settings(REDIS_URL=made.url, CACHES={"default": cache(made.url, 0)}),
    ):
        yield made


@pytest.fixture(autouse=True)
def redis(server: OwnRedis, v1: V1) -> Iterator[OwnRedis]:
    """It, empty; and in the end as it was, for the hub too."""
    server.client.flushall()
    for store in stores._redis._all.values():
        store._trips._pause_seconds = PAUSE_SECONDS
    yield server
    server.go_on()
    if not server.runs:
        server.start()
    server.client.config_set("maxmemory", 0)
    assert eventually(_is_back)


def _is_back() -> bool:
    """Whether the hub knows that Redis serves. It looks when it is asked."""
    known = list(stores._redis._all.items())
    for loop, store in known:
        if loop.is_running():
            loop.call_soon_threadsafe(store._trips.reachable)
    return all(store._trips._probe_at is None for loop, store in known if loop.is_running())
