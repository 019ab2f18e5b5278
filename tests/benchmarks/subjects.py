"""What is measured: the hub, and below it the floor, each at the same request."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.hub import KEY, Hub
from tests.benchmarks.processes import (
    LOAD_CORE,
    SERVER_CORE,
    Server,
    Tools,
    compiled,
    environment_of,
    free_port,
    serving,
)

# Each upstream is a provider of the hub with a model of its name.
UPSTREAMS = {
    "bench": ("--chunks", "100"),  # as fast as its reader
    "paced": ("--chunks", "200", "--interval-ms", "20"),  # 50 tokens a second
}
MARKER = "@" * 8  # the load writes a number over it: no two requests are the same
TEXT = (
    "the sea is wide and salty, a harbour lies behind old stone walls; boats come home with evening light. "
    "Nobody knows why gulls cry before rain (some say they remember), yet every child has asked: what do "
    "tides want? Salt, wind, 1,204 nets, tar, rope, and the slow turning of the year's longest shadow."
)


@dataclass(frozen=True)
class Request:
    """What is asked of a subject, in the shape of one surface."""

    path: str = "/v1/chat/completions"
    model: str = "bench"
    stream: bool = False
    prompt_bytes: int = 100
    body: str = ""  # another body than a chat completion's, with MARKER somewhere in it
    unique: bool = True  # each request differs from all others
    temperature: int | None = None
    redis: bool = False  # the hub's cache and limits are in Redis
    expect: str = "A short answer about the sea"

    @property
    def floor(self) -> str:
        return "ws_echo" if self.path.startswith("/ws/") else "relay"

    @property
    def floor_path(self) -> str:
        """Where the floor is asked: the relay passes on OpenAI's paths, whatever the hub's are."""
        return self.path if self.path.startswith(("/v1/", "/ws/")) else "/v1/chat/completions"

    @property
    def ending(self) -> str:
        """What the end of a whole stream holds."""
        return "event: done" if self.path.startswith("/api/") else "[DONE]"

    def content(self) -> str:
        if self.body:
            return self.body
        messages = [{"role": "user", "content": self.prompt()}]
        asked: dict[str, Any] = {"model": self.model, "messages": messages}
        asked |= {"config": {"max_tokens": 100}} if self.path.startswith("/api/") else {"max_tokens": 100}
        if self.temperature is not None:
            asked["temperature"] = self.temperature
        if self.stream:
            asked["stream"] = True
        return json.dumps(asked, separators=(",", ":"))

    def prompt(self) -> str:
        """Words in no order that repeats soon, as many as were asked for."""
        choice = TEXT.split()
        words, length, turn = [MARKER], len(MARKER), 0
        while length < self.prompt_bytes:
            turn += 1
            words.append(choice[(turn * 2_654_435_761 >> 13) % len(choice)])
            length += len(words[-1]) + 1
        return " ".join(words)[: max(self.prompt_bytes, len(MARKER))]


@dataclass(frozen=True)
class Target:
    """A running subject and what it is asked."""

    server: Server
    path: str
    request: Request
    body: Path
    expect: str
    client: Path
    seconds: float
    key: str = KEY


class Bench:
    """What all rows share: the tools, the upstreams, the hub's template."""

    def __init__(self, stack: ExitStack, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self.tools: Tools = compiled(folder)
        self.ports = {name: free_port() for name in UPSTREAMS}
        for name, options in UPSTREAMS.items():
            command = [str(self.tools.upstream), str(self.ports[name]), *options]
            log = folder / f"upstream-{name}.log"
            stack.enter_context(serving(command, self.ports[name], LOAD_CORE, environment_of(), log))
        self.hub = Hub(folder, self.ports)
        self.hub.set_up()

    @contextmanager
    def hub_for(self, request: Request, launcher: tuple[str, ...] = ()) -> Iterator[Target]:
        with self.hub.running(launcher, redis=request.redis) as server:
            yield self._target(server, request, request.path, request.ending)

    @contextmanager
    def floor_for(self, request: Request) -> Iterator[Target]:
        port, name = free_port(), request.floor
        command = [
            *(sys.executable, "-m", "uvicorn", f"tests.benchmarks.{name}:application"),
            *("--port", str(port), "--no-access-log", "--log-level", "warning"),
            *("--lifespan", "off" if name == "ws_echo" else "on"),
        ]
        environment = environment_of(UPSTREAM=f"http://127.0.0.1:{self.ports[request.model]}")
        with serving(command, port, SERVER_CORE, environment, self.folder / f"{name}.log") as server:
            yield self._target(server, request, request.floor_path, "[DONE]")

    def _target(self, server: Server, request: Request, path: str, ending: str) -> Target:
        body = self.folder / "body.json"
        body.write_text(request.content())
        expect = ending if request.stream else request.expect
        return Target(server, path, request, body, expect, self.tools.client, self.seconds)
