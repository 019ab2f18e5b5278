"""Two processes of one hub, as users run them, on one PostgreSQL and one Redis."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from websockets.exceptions import InvalidState

from tests.browser.line import Line
from tests.conftest import LiveHub
from tests.fakes import End, FakeUpstream, chunk
from tests.outside import TEST_DATABASE_URL, TEST_REDIS_URL
from tests.proofs.hub import KEY, Hub, hub_in
from tests.surfaces.v1 import HELLO
from tests.surfaces.ws import Message, Socket, text_of

GRACE_SECONDS = 1
OTHERS_KEY = f"sk-llmhub-others000000-{'o' * 43}"

SIGN_IN = """
import django
django.setup()
from django.contrib.auth.models import User
from django.test import Client
client = Client()
ada = User.objects.create_superuser("ada")
client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
print(client.cookies["sessionid"].value)
"""


class Caller(Socket):
    """A websocket to one of the processes."""

    def __init__(self, hub: Hub, key: str = KEY, **options: Any) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        super().__init__(LiveHub("127.0.0.1", hub.port), headers, **options)

    def begin(self, name: str = "c1", **fields: Any) -> None:
        self.say("start", id=name, request={"model": "model", "messages": HELLO} | fields)


class Pair:
    """Processes `one` and `two` of a hub, a `line` to their Redis that can be cut, and their upstream."""

    def __init__(self, one: Hub, two: Hub, line: Line) -> None:
        self.one, self.two, self.line = one, two, line
        self.upstream: FakeUpstream
        self.staff_session = ""
        self.since = datetime.now(UTC)  # of the present test
        self.during = ExitStack()

    def caller(self, hub: Hub, key: str = KEY, **options: Any) -> Caller:
        made = Caller(hub, key, **options)
        self.during.callback(made.leave)
        return made

    def rows(self) -> list[tuple[Any, ...]]:
        """State and tokens of every call of the test, once all are final."""
        self.one.await_rest(10)
        rows = self.one.query("SELECT created_at, state, completion_tokens FROM completions_completion")
        return [tuple(row) for created_at, *row in rows if created_at >= self.since]

    def sign_in(self) -> None:
        """Somebody who may do everything, and their session."""
        done = self.two._run("-c", SIGN_IN)
        assert done.returncode == 0, done.stderr
        self.staff_session = done.stdout.strip()

    def serve(self, hub: Hub) -> None:
        hub.environment["REDIS_URL"] = f"redis://127.0.0.1:{self.line.port}/15"
        hub.start()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    name = f"llmhub_scratch_{uuid.uuid4().hex}"
    with closing(psycopg.connect(TEST_DATABASE_URL, autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield urlsplit(TEST_DATABASE_URL)._replace(path=f"/{name}").geturl()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def processes(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, FakeUpstream]]:
    redis = urlsplit(TEST_REDIS_URL)
    with ExitStack() as stack:
        upstream = stack.enter_context(FakeUpstream(models=("model",)))
        line = stack.enter_context(Line())
        line.lead_to(LiveHub(redis.hostname or "127.0.0.1", redis.port or 6379))
        folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
        one, two = (stack.enter_context(hub_in(folder, database)) for folder in folders)
        for hub in (one, two):
            hub.command = ("-m", "tests.surfaces.ws_serve")
            hub.environment["LLMHUB_STREAM_GRACE_SECONDS"] = str(GRACE_SECONDS)
            hub.environment["LLMHUB_DRAIN_SECONDS"] = "1"
        one.set_up(upstream.url, keys=(KEY, OTHERS_KEY))
        made = Pair(one, two, line)
        starting = [threading.Thread(target=made.serve, args=(hub,)) for hub in (one, two)]
        starting.append(threading.Thread(target=made.sign_in))
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        yield made, upstream


@pytest.fixture
def pair(processes: tuple[Pair, FakeUpstream]) -> Iterator[Pair]:
    made, upstream = processes
    upstream.requests.clear()
    upstream._scripts.clear()
    made.upstream = upstream
    made.during, made.since = ExitStack(), datetime.now(UTC)
    with made.during:
        yield made
    made.line.down = made.line.frozen = False
    made.one.await_rest(10)


def held(pair: Pair, *pieces: str) -> tuple[Caller, list[Message]]:
    """A stream at process one that goes on for as long as its reader wants; `pieces` of it were read."""
    pair.upstream.events(*(chunk({"content": piece}) for piece in pieces), end=End.HOLD)
    socket = pair.caller(pair.one)
    socket.begin()
    pair.during.callback(_end, socket)
    frames = [socket.hear()]
    while text_of(frames) != "".join(pieces):
        frames.append(socket.hear())
    return socket, frames


def _end(socket: Caller) -> None:
    """Nobody waits for the grace of a stream that the test has left."""
    with suppress(OSError, InvalidState):
        socket.cancel()
