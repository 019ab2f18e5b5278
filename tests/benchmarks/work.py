"""The kinds of work a row can do on a target, each with the figures that it finds."""

import http.client
import time
from dataclasses import dataclass
from typing import ClassVar, Literal

from tests.benchmarks.load import Load, attempt, check, load, report_of, start_load
from tests.benchmarks.processes import NotMeasured
from tests.benchmarks.subjects import MARKER, Target

Compare = Literal["ratio", "difference", ""]
HEALTH = "/healthz"
REQUEST_SECONDS = 20.0
OTHERS = 0.05


@dataclass(frozen=True)
class Figure:
    """One number of one subject, and how it is set against that of the floor."""

    name: str
    value: float
    compare: Compare = ""
    digits: int = 0
    first: bool = False  # only the first round can see it


class Work:
    """What is done to a target; a subclass is a dataclass of its measures."""

    rounds: ClassVar[int] = 3  # how often floor and hub take turns

    def measure(self, target: Target) -> list[Figure]:
        raise NotImplementedError


@dataclass(frozen=True)
class Posts(Work):
    """POSTs one after the other on each connection."""

    connections: int
    warmup: float = 1.0

    def measure(self, target: Target) -> list[Figure]:
        attempt(target, "post")
        ran = load(target, "post", self.connections, self.warmup, unit="requests")
        return [
            Figure("CPU µs per request", ran.cpu_microseconds("requests"), "ratio"),
            Figure("requests per second", ran.found["requests"] / ran.seconds, "ratio"),
            Figure("p50 ms", ran.found["p50_us"] / 1e3, digits=1),
            Figure("p99 ms", ran.found["p99_us"] / 1e3, digits=1),
            *_others(ran),
        ]


@dataclass(frozen=True)
class Latency(Work):
    """One caller: how much later its answer comes than from the floor."""

    def measure(self, target: Target) -> list[Figure]:
        attempt(target, "post")
        ran = load(target, "post", unit="requests")
        return [
            Figure("p50 µs", ran.found["p50_us"], "difference"),
            Figure("p99 µs", ran.found["p99_us"], "difference"),
            *_others(ran),
        ]


@dataclass(frozen=True)
class Streams(Work):
    """Server-sent events on many connections, each stream followed by the next."""

    connections: int
    warmup: float = 1.0
    memory: bool = False

    def measure(self, target: Target) -> list[Figure]:
        attempt(target, "stream")
        ran = load(target, "stream", self.connections, self.warmup, unit="chunks")
        return [*_chunks(ran, "chunk"), *(_memory(ran, "stream", "busy") if self.memory else ())]


@dataclass(frozen=True)
class Sockets(Work):
    """Websockets, each with one stream after the other."""

    connections: int
    warmup: float = 3.0

    def measure(self, target: Target) -> list[Figure]:
        attempt(target, "ws")
        ran = load(target, "ws", self.connections, self.warmup, unit="chunks")
        frames = Figure("frames per second", ran.found["frames"] / ran.seconds, "ratio")
        return [*_chunks(ran, "token"), frames, *_memory(ran, "socket", "busy")]


@dataclass(frozen=True)
class IdleSockets(Work):
    """Websockets on which nothing happens."""

    rounds: ClassVar[int] = 1
    connections: int
    warmup: float = 12.0  # to open them all, on a slow machine too

    def measure(self, target: Target) -> list[Figure]:
        attempt(target, "ws-idle")
        ran = load(target, "ws-idle", self.connections, self.warmup, unit="open")
        return [
            Figure("sockets open", ran.found["open"]),
            *_memory(ran, "socket", "open"),
            Figure("CPU % while idle", ran.cpu_seconds / ran.seconds * 100, digits=1),
        ]


@dataclass(frozen=True)
class ColdStart(Work):
    """The first request to a process that has just begun to listen, and the second."""

    rounds: ClassVar[int] = 1

    def measure(self, target: Target) -> list[Figure]:
        connection = http.client.HTTPConnection("127.0.0.1", target.server.port, timeout=REQUEST_SECONDS)
        first, second = (self._milliseconds(connection, target, number) for number in range(2))
        connection.close()
        return [
            Figure("seconds until it listens", target.server.start_seconds, digits=2),
            Figure("first request ms", first, "difference", 1),
            Figure("second request ms", second, "difference", 1),
        ]

    @staticmethod
    def _milliseconds(connection: http.client.HTTPConnection, target: Target, number: int) -> float:
        body = target.body.read_text().replace(MARKER, f"{number:08}")
        headers = {"Authorization": f"Bearer {target.key}", "Content-Type": "application/json"}
        began = time.perf_counter()
        try:
            connection.request("POST", target.path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except OSError as error:
            raise NotMeasured(f"{target.path}: {error}") from error
        if answer.status != 200:
            raise NotMeasured(f"{target.path}: HTTP {answer.status}: {text[:200]}")
        return (time.perf_counter() - began) * 1e3


@dataclass(frozen=True)
class Stall(Work):
    """How long the event loop serves nobody else while large prompts come one after the other."""

    def measure(self, target: Target) -> list[Figure]:
        attempt(target, "post")
        attempt(target, "poll", HEALTH)
        prompts = start_load(target, "post", 1, 0.5, seconds=target.seconds + 1.0)
        polled = load(target, "poll", unit="requests", path=HEALTH)
        sent = report_of(prompts, target)
        check(sent, "requests")
        return [
            Figure(f"{HEALTH} worst ms", polled.found["max_us"] / 1e3, "ratio", 1),
            Figure(f"{HEALTH} p99 ms", polled.found["p99_us"] / 1e3, digits=1),
            Figure("prompts per second", sent["requests"] / sent["seconds"], "ratio", 1),
            Figure("one prompt p50 ms", sent["p50_us"] / 1e3, "ratio", 1),
            *_others(polled),
        ]


def _chunks(ran: Load, unit: str) -> list[Figure]:
    return [
        Figure(f"CPU µs per {unit}", ran.cpu_microseconds("chunks"), "ratio", 1),
        Figure(f"{unit}s per second", ran.found["chunks"] / ran.seconds, "ratio"),
        Figure("late p50 ms", ran.found["late_p50_us"] / 1e3, digits=1),
        Figure("late p99 ms", ran.found["late_p99_us"] / 1e3, digits=1),
        Figure("late max ms", ran.found["late_max_us"] / 1e3, digits=1),
        *_others(ran),
    ]


def _others(ran: Load) -> list[Figure]:
    """What the machine's other work took of the subject's core, where that is enough to be in its way."""
    share = ran.others_seconds / ran.seconds
    return [Figure("taken by others, % of core", share * 100)] if share > OTHERS else []


def _memory(ran: Load, unit: str, opened: str) -> list[Figure]:
    """What each open one costs: memory the process has taken since it was idle."""
    if not ran.found[opened]:
        return []
    taken = (ran.open_bytes - ran.idle_bytes) / 1024 / ran.found[opened]
    return [Figure(f"KiB per {unit}", taken, "ratio", 1, first=True)]
