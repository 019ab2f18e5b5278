"""What tests of the cache over `/v1` share: calls that may be cached, and answers that wait to be let go."""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from completions import metrics
from completions.cache import flights
from tests.fakes import USAGE, Received, Step, chunk, chunked, completion, response, sse, stream_head
from tests.surfaces.v1 import DONE, PIECES, V1, Caller, cost
from tests.waiting import eventually

COST = cost(9, 3)  # of the upstream's usual answer
TEXT = "".join(PIECES)


def cache_of(answer: Any) -> str:
    return str(answer.headers["x-llmhub-cache"])


def ask(v1: V1, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """A call that is deterministic by intent."""
    return v1.chat(headers, **({"temperature": 0} | fields))


def text_of_whole(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def says(v1: V1, **fields: Any) -> str:
    return text_of_whole(ask(v1, **fields))


def caller(v1: V1, **options: Any) -> Caller:
    """`ask`, on a connection of its own."""
    return Caller(v1, **({"temperature": 0} | options))


def cache_of_caller(one: Caller) -> str | None:
    return one.answer().getheader("x-llmhub-cache")


def by(v1: V1, key: str) -> V1:
    """The same hub, called with another key."""
    other = copy.copy(v1)
    other.key = key
    return other


def waits(v1: V1, pieces: Sequence[str] = PIECES, *, first: int = 2, end: bytes = b"") -> threading.Event:
    """The next answer: its first pieces (none, where it is whole), the rest once the event is set.

    `end`: what comes in place of the rest.
    """
    go = threading.Event()
    v1.during.callback(go.set)

    def script(request: Received) -> list[Step]:
        if not request.body.get("stream"):
            return [go, end or response(200, completion("".join(pieces)))]
        told = [chunked(sse(chunk({"content": piece}))) for piece in pieces]
        rest = [chunked(sse(event)) for event in (chunk({}, "stop"), chunk(None, usage=USAGE), DONE)]
        return [stream_head(), *told[:first], go, *([end] if end else [*told[first:], *rest, chunked(b"")])]

    v1.upstream.scripts(script)
    return go


class Together:
    """Calls that run at once, each in a thread of its own."""

    def __init__(self, v1: V1) -> None:
        self._pool = v1.during.enter_context(ThreadPoolExecutor(120))
        self._running = in_flight()

    def begin(self, count: int, call: Callable[[], Any]) -> list[Future[Any]]:
        """So many of the same call. Returns once they are on their way, as far as the hub counts them."""
        self._running += count
        begun = [self._pool.submit(call) for _ in range(count)]
        assert eventually(lambda: in_flight() >= self._running), in_flight()
        return begun


def in_flight() -> int:
    """Calls that run."""
    return int(metrics.IN_FLIGHT._value.get())


def riders() -> int:
    """Calls that share an upstream call, who leads included."""
    return sum(one._riders for mine in list(flights._flights._all.values()) for one in list(mine.values()))


def results(begun: Sequence[Future[Any]]) -> list[Any]:
    return [one.result(10) for one in begun]
