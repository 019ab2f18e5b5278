"""Both ends of the hub's wire: what arrives at its front door, and an upstream that also embeds."""

import base64
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes import USAGE, FakeUpstream, Received, Step, chunked, response, sse, stream_head

MODEL = "m"
ASK: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
VECTORS = ((0.1, -0.25, 1e-9), (3.5, 0.0, -0.7))  # the second is of "two", the first of any other input


def single(vector: tuple[float, ...]) -> list[float]:
    """The vector as 32 bits a number keep it."""
    return list(struct.unpack(f"<{len(vector)}f", packed(vector)))


def packed(vector: tuple[float, ...]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


@dataclass
class Arrival:
    """One HTTP request that reached the hub. `at` is of the monotonic clock, `status` None until answered."""

    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    at: float = field(default_factory=time.monotonic)
    status: int | None = None


class FrontDoor:
    """The hub's ASGI application, with a journal of the requests that come in: what a client really sent."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.arrivals: list[Arrival] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        arrival = Arrival(scope["method"], scope["path"], headers)
        self.arrivals.append(arrival)

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                arrival.status = message["status"]
            await send(message)

        await self.application(scope, receive, noted)

    @property
    def statuses(self) -> list[int | None]:
        return [arrival.status for arrival in self.arrivals]


class Upstream(FakeUpstream):
    """FakeUpstream with `/v1/embeddings` (of VECTORS) and `/v1/completions` too, which need no script.

    `packs` False: it gives numbers whatever `encoding_format` asks for, as many servers do.
    """

    packs = True

    def _script(self, request: Received) -> list[Step]:
        path = request.path.partition("?")[0]
        if path == "/v1/embeddings":
            return [response(200, self._embeddings(request.body), self.headers)]
        if path == "/v1/completions":
            return _older(request.body)
        return super()._script(request)

    def _embeddings(self, body: Mapping[str, Any]) -> dict[str, Any]:
        many = isinstance(body["input"], list) and not isinstance(body["input"][0], int)
        items = body["input"] if many else [body["input"]]
        base64_asked = self.packs and body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(packed(vector)).decode() if base64_asked else vector,
            }
            for index, vector in enumerate(VECTORS[item == "two"] for item in items)
        ]
        usage = {"prompt_tokens": 4, "total_tokens": 4}
        return {"object": "list", "data": data, "model": "fake-model", "usage": usage}


def _older(body: Mapping[str, Any]) -> list[Step]:
    def of(text: str, finish_reason: str | None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": finish_reason, "logprobs": None}
        head = {
            "id": "cmpl-fake",
            "object": "text_completion",
            "created": 1_760_000_000,
            "model": "fake-model",
        }
        return head | {"choices": [choice]} | more

    if not body.get("stream"):
        return [response(200, of("Hello!", "stop", usage=USAGE))]
    events: list[dict[str, Any] | str] = [
        of("Hel", None),
        of("lo!", None),
        of("", "stop"),
        of("", None, choices=[], usage=USAGE),
        "[DONE]",
    ]
    return [stream_head(), *(chunked(sse(event)) for event in events), chunked(b"")]


TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
}


def tool_answer() -> dict[str, Any]:
    """Changes of a whole answer that make it ask for the weather in Oslo."""
    message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}


def tool_pieces() -> list[dict[str, Any]]:
    """The deltas of a stream that asks for the same."""
    name = {"name": "weather", "arguments": ""}
    parts = ('{"ci', 'ty": "Os', 'lo"}')
    return [
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": name}]},
        *({"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts),
    ]
