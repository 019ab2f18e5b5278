"""What one call used: read from the upstream's own figures, else counted from what was sent and received."""

import time
from dataclasses import dataclass, field

from completions import tokens
from completions.prompts import Prompt
from providers import pricing
from providers.drivers.tool_calls import ToolCalls, call_text
from providers.types import JSON, Answer, Others, StreamChunk, Usage, UsageSource

HEAD = ("id", "created", "model")
MAKER = ("system_fingerprint", "service_tier")  # where the upstream tells them


@dataclass(slots=True)
class Meter:
    """Watches an answer as it passes. Durations are of the monotonic clock, in milliseconds."""

    prompt: Prompt  # counted when the upstream does not say
    started: float = field(default_factory=time.monotonic)
    first_token_ms: int | None = None
    finish_reason: str | None = None
    stated: Usage | None = None  # the upstream's last word on it that is no nonsense in itself
    anomaly: bool = False
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: ToolCalls = field(default_factory=ToolCalls)
    others: dict[int, list[str]] = field(default_factory=dict)  # what else was said, by the choice's index
    answered: bool = False  # something of the answer was received
    received: int = 0  # bytes of answer so far
    whole: JSON | None = None  # the body of an answer that came in one piece
    head: JSON = field(default_factory=dict)  # HEAD and MAKER of a stream, as its first chunk has them

    def chunk(self, chunk: StreamChunk) -> None:
        """Note one event of a stream. A later usage report replaces an earlier one: it is a total."""
        body, content, reasoning, tool_calls, finish_reason, usage, anomaly, others = chunk
        if content:
            self.content.append(content)
            self.received += size_of(content)
        if reasoning:
            self.reasoning.append(reasoning)
            self.received += size_of(reasoning)
        for part in tool_calls:
            self.received += self.tool_calls.add(part)
        if others:
            self._others(others)
        if not self.answered and (content or reasoning or tool_calls or others):
            self.first_token_ms = self.elapsed_ms()
            self.answered = True
            self.head = {name: body.get(name) for name in HEAD}
            self.head |= {name: body[name] for name in MAKER if body.get(name)}
        if finish_reason:
            self.finish_reason = finish_reason
        if usage is not None or anomaly:
            self._report(usage, anomaly)

    def answer(self, answer: Answer) -> None:
        """Note a whole answer."""
        self.answered = True
        self.whole = answer.body
        self.content.append(answer.content)
        if answer.reasoning:
            self.reasoning.append(answer.reasoning)
        self._others(answer.others)
        self.finish_reason = answer.finish_reason
        self._report(answer.usage, answer.usage_anomaly)
        calls = _message(answer.body).get("tool_calls")
        if isinstance(calls, list):  # each as it came, of whatever shape
            self.tool_calls.keep(call for call in calls if isinstance(call, dict))

    def elapsed_ms(self) -> int:
        return int((time.monotonic() - self.started) * 1000)

    @property
    def text(self) -> str:
        return "".join(self.content)

    def body(self) -> JSON:
        """The whole answer in OpenAI's shape: as it came, or made of the stream's parts (a chat's)."""
        if self.whole is not None:
            return self.whole
        choice = {
            "index": 0,
            "message": self.message(),
            "logprobs": None,
            "finish_reason": self.finish_reason,
        }
        return {**self.head, "object": "chat.completion", "choices": [choice]}

    def message(self) -> JSON:
        """The assistant's message, as it came or as the stream built it up, in the wire's shape."""
        if self.whole is not None and (whole := _message(self.whole)):
            return whole
        message: JSON = {"role": "assistant", "content": self.text or None}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls.in_order()
        return message

    @property
    def reported(self) -> Usage | None:
        """What the upstream says it used; None where it says nothing, or no output where there was some."""
        stated = self.stated
        return None if stated is not None and not stated.completion and self._has_output else stated

    @property
    def _has_output(self) -> bool:
        return bool(any(self.content) or self.reasoning or self.tool_calls or self.others)

    def usage(self, model: str) -> Usage:
        """The upstream's figures, or our own count of prompt and output.

        May take a while: not for the event loop.
        """
        if (reported := self.reported) is not None:
            return reported
        prompt = self.prompt.count(model)
        thought = tokens.count_text("".join(self.reasoning), model)
        called = "".join(map(call_text, self.tool_calls.values()))
        texts = (self.text + called, *map("".join, self.others.values()))
        output = [tokens.count_text(text, model) for text in texts]
        exact = prompt.exact and thought.exact and all(one.exact for one in output) and not self.tool_calls
        counted = Usage(
            prompt=prompt.count,
            completion=thought.count + sum(one.count for one in output),
            reasoning=thought.count,
            source=UsageSource.COUNTED if exact else UsageSource.ESTIMATED,
        )
        return counted._replace(anomaly=self.anomaly or self.stated is not None)

    def prompt_only(self, model: str) -> Usage:
        """What a call used that failed after its prompt was sent."""
        count = self.prompt.count(model)
        return Usage(prompt=count.count, source=UsageSource.ESTIMATED)

    def _report(self, usage: Usage | None, anomaly: bool) -> None:
        """Keep what the upstream says it used, unless it cannot be: then our own count will stand."""
        impossible = usage is not None and bool(pricing.fault(usage))
        self.anomaly = self.anomaly or anomaly or impossible
        self.stated = self.stated if usage is None or impossible else usage

    def _others(self, others: Others) -> None:
        for index, text in others:
            self.others.setdefault(index, []).append(text)
            self.received += size_of(text)


def size_of(text: str) -> int:
    """Bytes, as it is sent."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _message(body: JSON) -> JSON:
    """The assistant's message of a whole answer; {} where the shape is unexpected."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else {}
