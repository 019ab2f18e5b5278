"""The frames of a stream on the websocket: JSON texts, numbered from 0 without gaps."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from completions.types import Started
from providers.pricing import usd_text
from providers.types import JSON, StreamChunk


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
        """`error`: in the shape of `/v1`, {"error": {…}}."""
        return self._frame("error", error)

    def _text(self, pieces: Sequence[str]) -> str:
        seq, self.seq = self.seq, self.seq + 1
        text = orjson.dumps(pieces[0] if len(pieces) == 1 else "".join(pieces)).decode()
        return f'{{"type":"delta",{self._head}"seq":{seq},"content":{text}}}'

    def _frame(self, kind: str, fields: dict[str, Any]) -> str:
        seq, self.seq = self.seq, self.seq + 1
        rest = orjson.dumps(fields).decode()[1:]
        between = "," if fields else ""
        return f'{{"type":"{kind}",{self._head}"seq":{seq}{between}{rest}'


def refused(client_id: str, error: JSON) -> str:
    """The one frame of a call that was not made: it has no stream."""
    return orjson.dumps({"type": "error", "id": client_id, "stream": None, "seq": 0, **error}).decode()


def _parts(chunk: StreamChunk) -> JSON:
    parts: JSON = {}
    if chunk.content:
        parts["content"] = chunk.content
    if chunk.reasoning:
        parts["reasoning"] = chunk.reasoning
    if chunk.tool_calls:
        parts["tool_calls"] = list(chunk.tool_calls)
    return parts
