"""The demo provider: no network, no key, no model. It answers by rule, always the same, and says so."""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from providers.drivers.base import Driver, Sink
from providers.drivers.demo_embeddings import embeddings, encoding, prompt_text
from providers.drivers.samples import sample
from providers.errors import UpstreamTimeout
from providers.types import (
    JSON,
    Answer,
    Endpoint,
    ModelInfo,
    Operation,
    StreamChunk,
    Target,
    Usage,
    Validation,
)

MODEL = "demo-chat"
EMBEDDING_MODEL = "demo-embedding"
WORD_DELAY_SECONDS = 0.02
QUOTED = 160  # characters of the prompt that are repeated
MESSAGE_OVERHEAD = 3  # tokens around each message, and before the answer, as OpenAI counts them

GREETING = (
    "Hello, and welcome to llmhub! I am the demo provider: I need no key and no network, and I answer by "
    "a few simple rules rather than with a language model. Everything around me is real, though: this "
    "answer passed through the same API, was streamed word by word, and its tokens were counted and "
    "written to the ledger. When you are ready for a real model, add a provider in the admin."
)
ABOUT = (
    "llmhub is a self-hosted hub for language models, built as a Django application. Staff manage "
    "providers, models, prices and keys in the admin; web applications call one API for all of them; and "
    "every call is metered and logged in one ledger. I am its demo provider, here so that you can try all"
    " of this before you enter a key. To get answers from a real model, open the admin, add a provider, "
    "and enable one of its models."
)
QUOTING = (
    'You wrote: "{prompt}". A language model would now have something clever to say. I am llmhub\'s demo '
    "provider, so I can only tell you that your request arrived whole, that the answer is on its way back"
    " word by word, and that the tokens of both are counted. Add a real provider in the admin, and the "
    "same request will get a real answer: nothing in your code has to change."
)
TOOL_RESULT = (
    "Thank you, the tool answered: {prompt}. A language model would now weave that into its reply; I am "
    "llmhub's demo provider and only confirm that the round trip works."
)
EMPTY = (
    "Your message had no text that I could read. I am llmhub's demo provider; write me a sentence, "
    "and I will answer it."
)
GREETS = re.compile(
    r"\s*(hi|hello|hey|hallo|good (morning|day|evening)|greetings)\b.{0,40}$", re.IGNORECASE | re.DOTALL
)
ASKS_ABOUT = re.compile(r"llmhub|llm hub|who are you|what are you|what can you do|\bhelp\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Reply:
    """What will be said: text in pieces, or one tool call; and what it took."""

    id: str
    created: int
    model: str
    pieces: Sequence[str]
    call: JSON | None
    finish_reason: str
    usage: Usage

    def chunks(self, operation: Operation) -> Iterator[StreamChunk]:
        """The answer as a stream: its beginning, its pieces, its end, its usage."""
        if operation is Operation.COMPLETION:
            head = self.head("text_completion")
            for piece in self.pieces:
                yield StreamChunk({**head, "choices": [_choice(None, text=piece)]}, content=piece)
            last = _choice(self.finish_reason, text="")
        else:
            head = self.head("chat.completion.chunk")
            begun = _choice(None, delta={"role": "assistant", "content": ""})
            yield StreamChunk({**head, "choices": [begun]})
            yield from self._deltas(head)
            last = _choice(self.finish_reason, delta={})
        yield StreamChunk({**head, "choices": [last]}, finish_reason=self.finish_reason)
        yield StreamChunk({**head, "choices": [], "usage": self.wire_usage()}, usage=self.usage)

    def _deltas(self, head: JSON) -> Iterator[StreamChunk]:
        if self.call:
            call = {"index": 0, **self.call}
            yield StreamChunk(
                {**head, "choices": [_choice(None, delta={"tool_calls": [call]})]}, tool_calls=(call,)
            )
            return
        for piece in self.pieces:
            yield StreamChunk({**head, "choices": [_choice(None, delta={"content": piece})]}, content=piece)

    def head(self, kind: str) -> JSON:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def wire_usage(self) -> JSON:
        usage = self.usage
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.total,
        }


def _choice(finish_reason: str | None, **parts: Any) -> JSON:
    return {"index": 0, **parts, "finish_reason": finish_reason}


class DemoDriver(Driver):
    """`word_delay`: seconds between streamed words; whole answers take as long as their stream would."""

    def __init__(self, word_delay: float = WORD_DELAY_SECONDS) -> None:
        self.word_delay = word_delay

    async def complete(self, target: Target, operation: Operation, body: JSON, *, deadline: float) -> Answer:
        if operation is Operation.EMBEDDING:
            return await asyncio.to_thread(embeddings, target, body)
        reply = await asyncio.to_thread(_reply, target, operation, body)
        for _ in reply.pieces:
            await self._pause(target, deadline)
        text = "" if reply.call else "".join(reply.pieces)
        choice: JSON = {"index": 0, "finish_reason": reply.finish_reason}
        if operation is Operation.COMPLETION:
            choice |= {"text": text, "logprobs": None}
        else:
            choice["message"] = {"role": "assistant", "content": None if reply.call else text}
        if reply.call:
            choice["message"]["tool_calls"] = [reply.call]
        kind = "chat.completion" if operation is Operation.CHAT else "text_completion"
        answer = {**reply.head(kind), "choices": [choice], "usage": reply.wire_usage()}
        return Answer(answer, text, reply.finish_reason, reply.usage)

    async def stream(
        self, target: Target, operation: Operation, body: JSON, sink: Sink, *, deadline: float
    ) -> None:
        reply = await asyncio.to_thread(_reply, target, operation, body)
        for chunk in reply.chunks(operation):
            if chunk.content or chunk.tool_calls:
                await self._pause(target, deadline)
            if not sink.put([chunk]):
                await sink.room()

    async def list_models(self, endpoint: Endpoint) -> list[ModelInfo]:
        return [
            ModelInfo(MODEL, context_window=128_000, max_output=4_096, owned_by="llmhub"),
            ModelInfo(EMBEDDING_MODEL, context_window=8_192, owned_by="llmhub"),
        ]

    async def validate(self, endpoint: Endpoint) -> Validation:
        message = "The demo provider answers by itself; there is nothing to connect to."
        return Validation(ok=True, message=message, latency_ms=0, models=2)

    async def _pause(self, target: Target, deadline: float) -> None:
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, min(self.word_delay, left)))
        if left <= self.word_delay:
            provider = target.endpoint.provider
            message = f"provider {provider} did not finish in time"
            raise UpstreamTimeout(message, phase="total", provider=provider)


def _reply(target: Target, operation: Operation, body: JSON) -> _Reply:
    given = {**target.default_config, **body}
    messages = [message for message in given.get("messages") or () if isinstance(message, dict)]
    if operation is Operation.COMPLETION:
        messages = [{"role": "user", "content": prompt_text(given.get("prompt"))}]
    call = _tool_call(given)
    text = json.dumps(call["function"]) if call else _text(messages, given.get("response_format"))
    text, finish_reason = (text, "tool_calls") if call else _cut_at_stop(text, given.get("stop"))
    tokens = encoding().encode(text, disallowed_special=())
    bound = given.get("max_completion_tokens") or given.get("max_tokens")
    if not call and isinstance(bound, int) and len(tokens) > bound:
        text = encoding().decode(tokens[:bound], errors="ignore")
        tokens, finish_reason = tokens[:bound], "length"
    return _Reply(
        id=_id("chatcmpl-demo-", given),
        created=int(time.time()),
        model=target.upstream_model,
        pieces=re.findall(r"\s*\S+(?:\s+\Z)?", text),
        call=call,
        finish_reason=finish_reason,
        usage=Usage(prompt=_count(messages, given.get("tools")), completion=len(tokens)),
    )


def _text(messages: Sequence[JSON], response_format: Any) -> str:
    last = messages[-1] if messages else {}
    prompt = " ".join(_words(last).split())
    answer = _answer(prompt, str(last.get("role")))
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "json_schema":
        described = response_format.get("json_schema")
        schema = described.get("schema") if isinstance(described, dict) else None
        return json.dumps(sample(schema if isinstance(schema, dict) else {}), ensure_ascii=False)
    if kind == "json_object":
        return json.dumps({"answer": answer, "provider": "demo"}, ensure_ascii=False)
    return answer


def _answer(prompt: str, role: str) -> str:
    if not prompt:
        return EMPTY
    if GREETS.match(prompt) and role == "user":
        return GREETING
    shown = prompt if len(prompt) <= QUOTED else prompt[:QUOTED].rstrip() + "…"
    if role == "tool":
        return TOOL_RESULT.format(prompt=shown)
    return ABOUT if ASKS_ABOUT.search(prompt) else QUOTING.format(prompt=shown)


def _words(message: JSON) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(text for text in parts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _cut_at_stop(text: str, stop: Any) -> tuple[str, str]:
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    places = [place for word in stops if isinstance(word, str) and word and (place := text.find(word)) >= 0]
    return (text[: min(places)] if places else text), "stop"


def _tool_call(given: JSON) -> JSON | None:
    """A call of the tool that `tool_choice` names, or of the first where it says "required"."""
    choice = given.get("tool_choice")
    offered = [tool.get("function") for tool in given.get("tools") or () if isinstance(tool, dict)]
    tools = [function for function in offered if isinstance(function, dict)]
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        tools = [tool for tool in tools if tool.get("name") == name]
    elif choice != "required":
        return None
    if not tools:
        return None
    arguments = json.dumps(sample(tools[0].get("parameters") or {"type": "object"}))
    function = {"name": tools[0].get("name"), "arguments": arguments}
    return {"id": _id("call_demo_", given), "type": "function", "function": function}


def _count(messages: Sequence[JSON], tools: Any) -> int:
    texts = [f"{message.get('role')}{_words(message)}" for message in messages]
    texts += [json.dumps(tools)] if tools else []
    counted = sum(
        len(tokens) for tokens in encoding().encode_batch(texts, num_threads=1, disallowed_special=())
    )
    return counted + MESSAGE_OVERHEAD * (len(messages) + 1)


def _id(prefix: str, given: JSON) -> str:
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode())
    return prefix + digest.hexdigest()[:24]
