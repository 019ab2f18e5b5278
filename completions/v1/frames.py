"""Chunks as the frames of one stream: one id, one time and one model on all, usage where it was asked for."""

from collections.abc import Sequence
from typing import Any

from completions.answering import Answering, Result
from providers.pricing import usd_text
from providers.types import JSON, Operation, StreamChunk, Usage, UsageSource
from providers.wire_json import dumped

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keepalive\n\n"


class Frames:
    """Renders a stream's chunks. An upstream's own id and time are kept, those of its first chunk."""

    def __init__(self, run: Answering, *, include_usage: bool) -> None:
        self._model = run.model
        self._run_id = run.id
        self._id: str | None = None
        self._created: Any = None
        self._object = "chat.completion.chunk" if run.call.operation is Operation.CHAT else "text_completion"
        self._include_usage = include_usage
        self._raw_usage: JSON | None = None  # the upstream's last

    def render(self, chunks: Sequence[StreamChunk]) -> bytes:
        """The frames of some chunks; nothing where they tell of nothing but usage."""
        if self._id is None:
            self._begin(chunks)
        frames = []
        for chunk in chunks:
            body = chunk.body
            if "usage" in body and not self._take_usage(chunk):
                continue
            if self._include_usage:
                body["usage"] = None
            body["id"], body["created"], body["model"] = self._id, self._created, self._model
            frames.append(b"data: %b\n\n" % dumped(body))
        return b"".join(frames)

    def usage(self, result: Result) -> bytes:
        """The frame of the whole stream's usage and cost; nothing where it was not asked for."""
        if not self._include_usage:
            return b""
        used = result.usage or Usage()
        believed = self._raw_usage and used.source is UsageSource.PROVIDER
        usage = dict(self._raw_usage or {}) if believed else usage_object(used)
        if result.cost_nano is not None:
            usage["cost_usd"] = usd_text(result.cost_nano)
        head = {"id": self._id, "object": self._object, "created": self._created, "model": self._model}
        return b"data: %b\n\n" % dumped({**head, "choices": [], "usage": usage})

    def _begin(self, chunks: Sequence[StreamChunk]) -> None:
        """Azure's first chunk has neither id nor time: the first that has them tells."""
        bodies = [chunk.body for chunk in chunks]
        self._id = next((body["id"] for body in bodies if body.get("id")), f"chatcmpl-{self._run_id.hex}")
        timestamp = self._run_id.int >> 80  # milliseconds
        self._created = next((body["created"] for body in bodies if body.get("created")), timestamp // 1000)

    def _take_usage(self, chunk: StreamChunk) -> bool:
        """Keep a chunk's usage for the end, where it makes sense. Whether there is more of it to be told."""
        raw = chunk.body.pop("usage")
        if chunk.usage is not None and isinstance(raw, dict):
            self._raw_usage = raw
        return bool(chunk.body.get("choices"))


def usage_object(usage: Usage) -> JSON:
    """Usage in OpenAI's names: parts inside their wholes."""
    told: JSON = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
    }
    prompt = {
        "cached_tokens": usage.cached,
        "cache_write_tokens": usage.cache_write,
        "audio_tokens": usage.audio_prompt,
    }
    completion = {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.audio_completion}
    if any(prompt.values()):
        told["prompt_tokens_details"] = prompt
    if any(completion.values()):
        told["completion_tokens_details"] = completion
    return told
