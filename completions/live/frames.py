"""The frames of a stream on the websocket: JSON texts, numbered from 0 without gaps."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from completions.errors import LLMServiceError
from completions.types import Started
from completions.v1.errors import error_object, shape, told
from providers.pricing import usd_text
from providers.types import JSON, StreamChunk
from providers.wire_json import dumped

NOT_FOUND = error_object(
    "There is no such stream: it never was, it is kept no longer, or it is somebody else's.",
    "invalid_request_error",
    "stream_not_found",
    "stream",
)


def lost(why: str) -> JSON:
    """The error of a stream whose rest cannot be had any more."""
    return error_object(f"The rest of the answer cannot be had: {why}", "api_error", "stream_lost")


def error_of(error: LLMServiceError) -> JSON:
    """In the shape of `/v1`, {"error": {…}}, with `retry_after` where that says it in a header."""
    said = shape(error)
    seconds = dict(told(error).headers).get(b"retry-after")
    if seconds is not None:
        said["error"]["retry_after"] = int(seconds)
    return said


class Frames:
    """Makes one stream's frames. Each carries the caller's id, the stream's id and `seq`."""

    def __init__(self, client_id: str, stream_id: str) -> None:
        self.seq = 0  # of the next frame
        head = orjson.dumps({"id": client_id, "stream": stream_id}).decode()[1:-1]
        self._head = f"{head},"

    def started(self, started: Started) -> str:
        facts = {"model": started.model, "provider": started.provider, "cache": started.cache}
        return self._frame("started", facts)

    def deltas(self, chunks: Iterable[StreamChunk]) -> list[str]:
        """What chunks bring, texts that came together joined; nothing for chunks that bring nothing."""
        frames: list[str] = []
        content: list[str] = []
        for chunk in chunks:
            if chunk.content and not (chunk.reasoning or chunk.tool_calls):
                content.append(chunk.content)
                continue
            if content:
                frames.append(self._text(content))
                content = []
            if parts := _parts(chunk):
                frames.append(self._frame("delta", parts))
        if content:
            frames.append(self._text(content))
        return frames

    def usage(self, usage: JSON, cost_nano: int | None) -> str:
        cost = None if cost_nano is None else usd_text(cost_nano)
        return self._frame("usage", {**usage, "cost_usd": cost})

    def done(self, finish_reason: str | None) -> str:
        return self._frame("done", {"finish_reason": finish_reason})

    def cancelled(self) -> str:
        return self._frame("cancelled", {})

    def error(self, error: JSON) -> str:
        """`error`: {"error": {…}}."""
        return self._frame("error", error)

    def _text(self, pieces: Sequence[str]) -> str:
        seq, self.seq = self.seq, self.seq + 1
        text = orjson.dumps(pieces[0] if len(pieces) == 1 else "".join(pieces)).decode()
        return f'{{"type":"delta",{self._head}"seq":{seq},"content":{text}}}'

    def _frame(self, kind: str, fields: dict[str, Any]) -> str:
        seq, self.seq = self.seq, self.seq + 1
        rest = dumped(fields).decode()[1:]
        between = "," if fields else ""
        return f'{{"type":"{kind}",{self._head}"seq":{seq}{between}{rest}'


def accepted(client_id: str, stream_id: str) -> str:
    """Says which stream a call has become, before its first frame: it can be resumed from now on."""
    return dumped({"type": "accepted", "id": client_id, "stream": stream_id}).decode()


def refused(error: JSON, client_id: str = "", resumed: str | None = None) -> str:
    """A frame of no stream: of a call that was not made, or (`resumed`) a stream that cannot be read."""
    facts: JSON = {"type": "error", "id": client_id, "stream": None, "seq": 0, **error}
    if resumed is not None:
        facts["resumed"] = resumed
    return dumped(facts).decode()


def _parts(chunk: StreamChunk) -> JSON:
    parts: JSON = {}
    if chunk.content:
        parts["content"] = chunk.content
    if chunk.reasoning:
        parts["reasoning"] = chunk.reasoning
    if chunk.tool_calls:
        parts["tool_calls"] = list(chunk.tool_calls)
    return parts
