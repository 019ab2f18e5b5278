"""A hub on a real socket, what arrives at it, and the upstream behind it."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from openai import OpenAI

from completions import tokens
from completions.models import ApiKey
from tests.clients.wire import ASK, MODEL, FrontDoor, Upstream
from tests.conftest import LiveHub
from tests.factories import make_key, make_provider
from tests.outside import NODE, NODE_CLIENTS
from tests.waiting import eventually

SCRIPT_SECONDS = 30

Ask = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def _tokenizer_loaded() -> None:
    """Loaded by the first call of a process that must be counted: not what a test should have to wait for."""
    tokens.count_text("Hello", MODEL)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as fake:
        yield fake


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> FrontDoor:
    """The journal of what arrives at the hub."""
    from llmhub import asgi

    door = FrontDoor(asgi.application)
    monkeypatch.setattr(asgi, "application", door)
    monkeypatch.setattr("providers.dispatch.PAUSE_SECONDS", (0.01, 0.02))
    return door


@pytest.fixture
def base_url(door: FrontDoor, live_hub: LiveHub) -> str:
    """Where a client is pointed. (The door first: the hub takes what it finds when it starts.)"""
    return f"{live_hub.url}/v1"


@pytest.fixture
def key(base_url: str, upstream: Upstream) -> str:
    """A caller's key; the hub has one provider, whose model is MODEL."""
    make_provider(upstream_url=upstream.url, models=(MODEL,))
    return make_key()[1]


@pytest.fixture
def client(base_url: str, key: str) -> Iterator[OpenAI]:
    """The official client as it comes: nothing set but where it calls, and its key."""
    with OpenAI(base_url=base_url, api_key=key) as client:
        yield client


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def ask(request: pytest.FixtureRequest, client: OpenAI) -> Ask:
    """A call of either kind, with whatever else it is given."""

    def make(client: OpenAI = client, **fields: Any) -> Any:
        return client.chat.completions.create(**ASK | {"stream": request.param} | fields)

    return make


@dataclass(frozen=True)
class Node:
    """Runs scripts of node/ with the hub's address and a key."""

    base_url: str
    key: str

    def __call__(self, name: str, **given: Any) -> Any:
        """What a script printed that was given this."""
        with self.begin(name, **given) as running:
            try:
                out, errors = running.communicate(timeout=SCRIPT_SECONDS)
            except subprocess.TimeoutExpired:
                running.kill()
                raise
        assert (running.returncode, errors) == (0, "")
        return json.loads(out)

    def begin(self, name: str, **given: Any) -> subprocess.Popen[str]:
        """A script that runs until its input ends, if it waits for that."""
        return subprocess.Popen(
            [NODE, f"{name}.mjs", json.dumps(given)],
            cwd=NODE_CLIENTS,
            env={"PATH": os.environ["PATH"], "BASE_URL": self.base_url, "KEY": self.key},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def node(base_url: str, key: str) -> Node:
    """Mark the test `node`."""
    return Node(base_url, key)


@pytest.fixture
def busy(client: OpenAI, upstream: Upstream, door: FrontDoor) -> Iterator[None]:
    """The key may make one call at a time, and one runs: until another was refused because of it."""
    ApiKey.objects.update(concurrent_calls=1)
    upstream.hangs("idle").answers("At last!")
    stream = client.chat.completions.create(**ASK, stream=True)
    next(stream)

    def leave() -> None:
        eventually(lambda: 429 in door.statuses, SCRIPT_SECONDS)
        stream.close()

    leaving = threading.Thread(target=leave)
    leaving.start()
    yield
    leaving.join()
