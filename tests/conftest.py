"""Fixtures of the whole suite: the services a test may need, and the hub itself on a real socket."""

import asyncio
import inspect
import os
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
import uvicorn
from pytest_django import DjangoDbBlocker

from tests.outside import CHROMIUM, PROBLEMS, TEST_DATABASE_URL, TEST_REDIS_URL
from tests.settings import ON_POSTGRES

START_SECONDS = 20
STOP_SECONDS = 10
GRACE_SECONDS = 2  # for what is still open when a hub is stopped
TICK_SECONDS = 0.005
# What mostly waits comes first, and the rest runs beside it: nothing long is left alone at the end.
WAITING = Path(__file__).parent / "proofs"
WAITING_FILES = ("test_bootstrap.py", "test_v1_cache_processes.py", "test_ws_processes.py")
PROTOCOLS = {  # as `manage.py serve` has them
    "http": "llmhub.protocol:Protocol",
    "ws": "websockets-sansio",
    "ws_per_message_deflate": False,
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if ON_POSTGRES:  # what touches no database was seen on the first pass
        kept = [item for item in items if _needs_database(item) and item.get_closest_marker("sqlite") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
    items.sort(key=lambda item: not item.path.is_relative_to(WAITING) and item.path.name not in WAITING_FILES)


def _needs_database(item: pytest.Item) -> bool:
    fixtures: set[str] = set(getattr(item, "fixturenames", ()))
    return item.get_closest_marker("django_db") is not None or bool(fixtures & {"db", "transactional_db"})


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, visibly, what needs a service that is not there; fail where it must be there."""
    for name, problem in PROBLEMS.items():
        if item.get_closest_marker(name) is None or not (reason := problem()):
            continue
        if os.environ.get(f"LLMHUB_REQUIRE_{name.upper()}") == "1":
            pytest.fail(f"LLMHUB_REQUIRE_{name.upper()}=1, but {reason}", pytrace=False)
        pytest.skip(reason)


@pytest.fixture
def postgres_url() -> str:
    """A PostgreSQL where databases may be made. Mark the test `postgres`."""
    return TEST_DATABASE_URL


@pytest.fixture
def new_database() -> Iterator[Callable[[], str]]:
    """Makes an empty PostgreSQL database, gives its URL; it goes with the test. Mark the test `postgres`."""
    import psycopg

    made: list[str] = []
    with psycopg.connect(TEST_DATABASE_URL, autocommit=True) as connection:

        def make() -> str:
            name = f"llmhub_scratch_{uuid.uuid4().hex}"
            connection.execute(f"CREATE DATABASE {name}")
            made.append(name)
            return urlsplit(TEST_DATABASE_URL)._replace(path=f"/{name}").geturl()

        yield make
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url() -> str:
    """A Redis database that holds nothing of value. Mark the test `redis`."""
    return TEST_REDIS_URL


@pytest.fixture
def chromium() -> str:
    """The browser's path. Mark the test `browser`."""
    return CHROMIUM


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """What a process keeps between requests, a test must not inherit: its rows were another test's."""
    from django.core.cache import cache as django_cache

    from completions import accounts, jobs, keys, ledger, limits
    from completions.cache import index, policy, semantic, stores
    from completions.exchange import forget_limits
    from providers import breaker, registry

    breaker.forget()
    registry._State.current = None
    registry.forget()
    accounts.forget()
    limits.forget()
    forget_limits()
    ledger.forget()
    jobs.stopping.clear()
    keys.forget_pepper()
    keys.forget_uses()
    index.forget()
    policy.forget()
    semantic.forget()
    stores.forget()
    django_cache.clear()


@pytest.fixture
async def _upstream_connections_closed() -> AsyncIterator[None]:
    from providers import drivers

    yield
    await drivers.aclose()


@pytest.fixture(autouse=True)
def _no_upstream_connection_outlives_its_loop(request: pytest.FixtureRequest) -> None:
    """The hub keeps a session of connections per event loop, and each async test has a loop of its own."""
    if isinstance(request.node, pytest.Function) and inspect.iscoroutinefunction(request.node.obj):
        request.getfixturevalue("_upstream_connections_closed")


@pytest.fixture(scope="session", autouse=True)
def _threads_of_the_hub_may_always_look(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """pytest-django keeps the database from everybody between two tests. The ledger's thread, which lives on,
    would take that for an outage, and refuse the first call of the next test.
    """
    from django.db.backends.base.base import BaseDatabaseWrapper

    forbid = BaseDatabaseWrapper.ensure_connection
    with django_db_blocker.unblock():
        connect = BaseDatabaseWrapper.ensure_connection

    def forbidden_to_tests(self: BaseDatabaseWrapper) -> None:
        if threading.current_thread() is threading.main_thread():
            forbid(self)
        connect(self)

    BaseDatabaseWrapper.ensure_connection = forbidden_to_tests  # type: ignore[method-assign]


@pytest.fixture(scope="session", autouse=True)
def _no_connection_outlives_the_suite(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Threads of the hub keep their connections; PostgreSQL drops no database that has any."""
    yield
    from django.db import connections

    from completions import bridge, keys, ledger
    from providers import drivers

    bridge.run_sync(drivers.aclose)
    with django_db_blocker.unblock():
        keys.forget_uses()
        ledger.close()
    if ON_POSTGRES:
        from django.db.backends.postgresql.base import DatabaseWrapper

        connection = connections["default"]
        assert isinstance(connection, DatabaseWrapper)
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        connection.close()
        connection.close_pool()


@dataclass(frozen=True)
class LiveHub:
    """A running hub: `url` without a slash at its end."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class _Server(uvicorn.Server):
    """uvicorn's, which by itself looks ten times a second whether it is to stop and who is still there."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        deadline = time.monotonic() + GRACE_SECONDS
        while (state.connections or state.tasks) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(TICK_SECONDS)
        for task in state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextmanager
def running_hub(**config: Any) -> Iterator[LiveHub]:
    """The hub's ASGI application behind uvicorn, in a thread of its own, on the database that is open.

    One that runs for a few calls need not tidy the heap: that takes longer than the rest of a test.
    """
    from llmhub import asgi, lifespan

    listener = socket.create_server(("127.0.0.1", 0))
    given = {"lifespan": "on", "log_level": "warning", "log_config": None, **PROTOCOLS, **config}
    server = _Server(uvicorn.Config(asgi.application, **given))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="live-hub", daemon=True)
    start = tuple(step for step in lifespan.START if step is not lifespan._freeze_heap)
    with patch.object(lifespan, "START", start):
        thread.start()
        _wait_until_started(server, thread)
    yield LiveHub(*listener.getsockname())
    server.should_exit = True
    thread.join(STOP_SECONDS)
    listener.close()
    assert not thread.is_alive(), f"the hub did not stop within {STOP_SECONDS} s"


@pytest.fixture
def live_hub(transactional_db: None) -> Iterator[LiveHub]:
    """The running hub, on this test's database."""
    with running_hub() as hub:
        yield hub


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            pytest.fail("the hub did not start")
        time.sleep(0.01)


@pytest.fixture
def repository() -> Path:
    """The root of the working tree."""
    return Path(__file__).resolve().parent.parent
