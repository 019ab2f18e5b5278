"""A scripted upstream on a real socket, so that tests fake nothing but the wire.

    with FakeUpstream() as upstream:               # speaks OpenAI's wire at upstream.url
        upstream.answers("Hello!")                 # what the next completion request gets
        upstream.cuts(after=2)                     # the one after it: two pieces of a stream, then FIN
        ...
        assert upstream.requests[0].body["model"] == "m"

Scripts are used one per completion request, in order; the last one repeats. Without any, requests get a
sensible answer, streamed or not as they ask. `upstream.models` is what GET /v1/models lists, `upstream.key`
the key it insists on. It runs in a thread with a loop of its own: tests may be sync or async.
"""

import asyncio
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

USAGE: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
CREATED = 1_760_000_000
WAIT_SECONDS = 5.0


class End(Enum):
    """What becomes of the connection here. A script without one leaves it open for the next request."""

    CLOSE = "close"  # FIN
    RESET = "reset"  # RST
    HOLD = "hold"  # silence until the client goes


Step = bytes | float | threading.Event | End  # send these bytes; wait so many seconds, or for this; end so


@dataclass
class Received:
    """One request. `disconnected_at` (monotonic) is set when the client leaves before it was answered."""

    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    raw: bytes
    disconnected_at: float | None = None
    gone: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    def wait_gone(self, seconds: float = WAIT_SECONDS) -> bool:
        """Whether the client has left, or leaves within `seconds`, before it was fully answered."""
        return self.gone.wait(seconds)


Script = Callable[[Received], list[Step]]


def completion(content: str = "Hello!", **changes: Any) -> dict[str, Any]:
    """A whole answer in OpenAI's shape."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": changes.pop("finish_reason", "stop"),
    }
    body = {"id": "chatcmpl-fake", "object": "chat.completion", "created": CREATED, "model": "fake-model"}
    return body | {"choices": [choice], "usage": USAGE} | changes


def chunk(
    delta: Mapping[str, Any] | None, finish_reason: str | None = None, **changes: Any
) -> dict[str, Any]:
    """One chunk of a streamed answer; delta None: a chunk without choices, as usage comes in."""
    choices = [] if delta is None else [{"index": 0, "delta": dict(delta), "finish_reason": finish_reason}]
    body = {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "fake-model",
    }
    return body | {"choices": choices} | changes


def sse(*events: Mapping[str, Any] | str) -> bytes:
    """Events on the wire: objects as JSON, text (such as [DONE]) as it is."""
    texts = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return b"".join(f"data: {text}\n\n".encode() for text in texts)


def response(status: int, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP answer: `body` as JSON unless it is bytes or text."""
    text = body if isinstance(body, (bytes, str)) else json.dumps(body)
    data = text.encode() if isinstance(text, str) else text
    given = {"content-type": "application/json", "content-length": str(len(data))} | dict(headers or {})
    return _head(status, given) + data


def stream_head(headers: Mapping[str, str] | None = None, status: int = 200) -> bytes:
    """The head of a chunked SSE answer; follow it with `chunked(...)` parts."""
    return _head(
        status, {"content-type": "text/event-stream", "transfer-encoding": "chunked"} | dict(headers or {})
    )


def chunked(data: bytes) -> bytes:
    """`data` as one HTTP chunk; empty: the last chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode()


class FakeUpstream:
    """See the module. `url` is the base URL (ends in /v1), `requests` the journal of everything received."""

    def __init__(self, *, models: Sequence[str] = ("fake-model",), key: str | None = None) -> None:
        self.models = list(models)
        self.key = key  # set: requests without it get 401
        self.headers: dict[str, str] = {}  # on every whole answer and stream head
        self.requests: list[Received] = []
        self._scripts: deque[Script] = deque()
        self._arrived = threading.Condition()
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.host, self.port = self._socket.getsockname()
        self._thread = threading.Thread(target=self._run, name="fake-upstream", daemon=True)

    # --- scripts: what completion requests get

    def answers(
        self, content: str = "Hello!", *, headers: Mapping[str, str] | None = None, **changes: Any
    ) -> Self:
        """A whole answer; `changes` replace fields of the body (usage, finish_reason, choices, ...)."""
        return self.refuses(200, completion(content, **changes), headers)

    def refuses(self, status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Self:
        """Any whole answer: `body` as JSON, text and bytes as they are; left out: an error like OpenAI's."""
        shown = _error(status) if body is None else body
        return self.scripts(lambda _: [response(status, shown, {**self.headers, **(headers or {})})])

    def streams(
        self,
        pieces: Sequence[str] = ("Hel", "lo", "!"),
        *,
        usage: Mapping[str, Any] | None = USAGE,
        finish_reason: str | None = "stop",
        delay: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Role, pieces, finish_reason, usage (None: left out), [DONE]; `delay` seconds before each."""
        events: list[Mapping[str, Any] | str] = [chunk({"role": "assistant", "content": ""})]
        events += [chunk({"content": piece}) for piece in pieces]
        events += [chunk({}, finish_reason)] if finish_reason else []
        events += [chunk(None, usage=dict(usage))] if usage is not None else []
        return self.events(*events, "[DONE]", delay=delay, headers=headers)

    def events(
        self,
        *events: Mapping[str, Any] | str | bytes,
        delay: float = 0.0,
        end: End | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Exactly these events, each an HTTP chunk; bytes go as they are (comments, broken lines)."""

        def script(_: Received) -> list[Step]:
            steps: list[Step] = [stream_head({**self.headers, **(headers or {})})]
            for event in events:
                steps += [delay] if delay else []
                steps.append(chunked(event if isinstance(event, bytes) else sse(event)))
            return [*steps, end] if end else [*steps, chunked(b"")]

        return self.scripts(script)

    def sends(self, parts: Sequence[bytes], *, delay: float = 0.0, end: End = End.CLOSE) -> Self:
        """Raw bytes, head included, `delay` seconds before each part; then `end`."""
        steps: list[Step] = [step for part in parts for step in ((delay, part) if delay else (part,))]
        return self.scripts(lambda _: [*steps, end])

    def hangs(self, phase: str = "first_token") -> Self:
        """Silence: before the head of the answer ("headers"), after it, or after two pieces ("idle")."""
        pieces = [chunk({"content": "Hel"}), chunk({"content": "lo"})]
        if phase == "headers":
            return self.scripts(lambda _: [End.HOLD])
        return self.events(*(pieces if phase == "idle" else []), end=End.HOLD)

    def cuts(self, after: int = 2, *, reset: bool = False, finish_reason: str | None = None) -> Self:
        """A stream of `after` pieces of content ("piece0 ", "piece1 ", ...) and then FIN, or RST."""
        events = [chunk({"content": f"piece{number} "}) for number in range(after)]
        events += [chunk({}, finish_reason)] if finish_reason else []
        return self.events(*events, end=End.RESET if reset else End.CLOSE)

    def scripts(self, script: Script) -> Self:
        """Any script: a function from the request to its steps."""
        self._scripts.append(script)
        return self

    # --- what came in

    def wait_for(self, count: int = 1, seconds: float = WAIT_SECONDS) -> Received:
        """The `count`-th request, waited for. Raises TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, seconds):
                raise TimeoutError(f"{len(self.requests)} of {count} requests came within {seconds} s")
        return self.requests[count - 1]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    # --- the server

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(WAIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()
        self._socket.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, sock=self._socket, limit=1 << 26)
        )
        self._started.set()
        self._loop.run_forever()

    async def _stop(self) -> None:
        self._loop.remove_reader(self._socket)  # no more accepts: asyncio loses one that a close overtakes
        await asyncio.sleep(0.002)
        self._server.close()
        while True:
            await asyncio.sleep(0.002)  # what was just accepted begins, what was cancelled ends
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if not others:
                return
            for task in others:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            early = b""
            while True:
                request = await self._receive(reader, early)
                watch = asyncio.ensure_future(reader.read(1))
                try:
                    if not await self._play(request, watch, writer) or not (early := await watch):
                        break
                finally:
                    watch.cancel()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            writer.transport.abort()

    async def _receive(self, reader: asyncio.StreamReader, early: bytes) -> Received:
        head = early + await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Received(method, path, headers, raw)
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        return request

    async def _play(
        self, request: Received, watch: asyncio.Future[bytes], writer: asyncio.StreamWriter
    ) -> bool:
        """Run the script of `request`; whether the connection is still good for another."""
        play = asyncio.ensure_future(self._perform(self._script(request), writer))
        both: set[asyncio.Future[Any]] = {play, watch}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if play.done() or watch.result():
                return await play
        except ConnectionError:
            pass  # it left while something was being sent
        finally:
            play.cancel()
        request.disconnected_at = time.monotonic()
        request.gone.set()
        return False

    async def _perform(self, steps: list[Step], writer: asyncio.StreamWriter) -> bool:
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, threading.Event):
                while not step.is_set():  # noqa: ASYNC110 - it is set in another thread
                    await asyncio.sleep(0.002)
            else:
                await self._end(step, writer)
                return False
        return True

    async def _end(self, end: End, writer: asyncio.StreamWriter) -> None:
        if end is End.HOLD:
            await asyncio.Event().wait()
        if end is End.RESET:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            writer.close()
            await writer.wait_closed()

    def _script(self, request: Received) -> list[Step]:
        path = request.path.partition("?")[0]
        if self.key is not None and self.key not in _keys(request.headers):
            return [response(401, _error(401, "Incorrect API key provided", "invalid_api_key"), self.headers)]
        if request.method == "GET" and path == "/v1/models":
            return [
                response(200, {"object": "list", "data": self._models(), "has_more": False}, self.headers)
            ]
        if request.method != "POST" or path != "/v1/chat/completions":
            return [response(404, _error(404, f"no route for {request.method} {path}"), self.headers)]
        if not self._scripts:
            return self._default(request)
        script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
        return script(request)

    def _default(self, request: Received) -> list[Step]:
        if not request.body.get("stream"):
            return [response(200, completion(model=request.body["model"]), self.headers)]
        options = request.body.get("stream_options") or {}
        events: list[Mapping[str, Any] | str] = [chunk({"role": "assistant", "content": ""})]
        events += [chunk({"content": piece}) for piece in ("Hel", "lo", "!")]
        events += [chunk({}, "stop")]
        events += [chunk(None, usage=USAGE)] if options.get("include_usage") else []
        return [
            stream_head(self.headers),
            *(chunked(sse(event)) for event in (*events, "[DONE]")),
            chunked(b""),
        ]

    def _models(self) -> list[dict[str, Any]]:
        return [
            {"id": name, "object": "model", "created": CREATED, "owned_by": "fake"} for name in self.models
        ]


def _keys(headers: Mapping[str, str]) -> set[str]:
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    return {bearer, headers.get("api-key", ""), headers.get("x-api-key", "")}


def _error(status: int, message: str = "scripted refusal", code: str | None = None) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


@contextmanager
def refused_url() -> Iterator[str]:
    """A base URL at which every connection is refused."""
    with socket.socket() as taken:  # bound but not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@contextmanager
def silent_url() -> Iterator[str]:
    """A base URL where connections are neither accepted nor refused: the queue for them is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        for one in waiting:
            one.close()
