"""What one call used: read from the upstream's own figures, else counted from what was sent and received."""

import time
from dataclasses import dataclass, field

from completions import tokens
from completions.prompts import Prompt
from providers import pricing
from providers.types import JSON, Answer, StreamChunk, Usage, UsageSource


@dataclass(slots=True)
class Meter:
    """Watches an answer as it passes. Durations are of the monotonic clock, in milliseconds."""

    prompt: Prompt  # counted when the upstream does not say
    started: float = field(default_factory=time.monotonic)
    first_token_ms: int | None = None
    finish_reason: str | None = None
    reported: Usage | None = None
    anomaly: bool = False
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: dict[int, JSON] = field(default_factory=dict)
    answered: bool = False  # something of the answer was received
    received: int = 0  # characters of answer so far
    whole: JSON | None = None  # the body of an answer that came in one piece
    head: JSON = field(default_factory=dict)  # id, created and model of a stream, as its first chunk has them

    def chunk(self, chunk: StreamChunk) -> None:
        """Note one event of a stream. A later usage report replaces an earlier one: it is a total."""
        body, content, reasoning, tool_calls, finish_reason, usage, anomaly = chunk
        if content:
            self.content.append(content)
            self.received += len(content)
        if reasoning:
            self.reasoning.append(reasoning)
            self.received += len(reasoning)
        for part in tool_calls:
            self._tool_call(part)
        if not self.answered and (content or reasoning or tool_calls):
            self.first_token_ms = self.elapsed_ms()
            self.answered = True
            self.head = {name: body.get(name) for name in ("id", "created", "model")}
        if finish_reason:
            self.finish_reason = finish_reason
        if usage is not None or anomaly:
            self._report(usage, anomaly)

    def answer(self, answer: Answer) -> None:
        """Note a whole answer."""
        self.answered = True
        self.whole = answer.body
        self.content.append(answer.content)
        self.finish_reason = answer.finish_reason
        self._report(answer.usage, answer.usage_anomaly)
        for index, part in enumerate(_message(answer.body).get("tool_calls") or ()):
            if isinstance(part, dict):
                self.tool_calls[index] = part

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
            message["tool_calls"] = [self.tool_calls[index] for index in sorted(self.tool_calls)]
        return message

    def usage(self, model: str) -> Usage:
        """The upstream's figures, or our own count of prompt and output.

        May take a while: not for the event loop.
        """
        if self.reported is not None:
            return self.reported
        prompt = self.prompt.count(model)
        thought = tokens.count_text("".join(self.reasoning), model)
        output = tokens.count_text(self.text + self._tool_text(), model)
        exact = prompt.exact and thought.exact and output.exact and not self.tool_calls
        counted = Usage(
            prompt=prompt.count,
            completion=output.count + thought.count,
            reasoning=thought.count,
            source=UsageSource.COUNTED if exact else UsageSource.ESTIMATED,
        )
        return counted._replace(anomaly=self.anomaly)

    def prompt_only(self, model: str) -> Usage:
        """What a call used that failed after its prompt was sent."""
        count = self.prompt.count(model)
        return Usage(prompt=count.count, source=UsageSource.ESTIMATED)

    def _report(self, usage: Usage | None, anomaly: bool) -> None:
        """Keep what the upstream says it used, unless it cannot be: then our own count will stand."""
        impossible = usage is not None and bool(pricing.fault(usage))
        self.anomaly = self.anomaly or anomaly or impossible
        self.reported = self.reported if usage is None or impossible else usage

    def _tool_text(self) -> str:
        functions = (call.get("function") or {} for call in self.tool_calls.values())
        return "".join(
            f"{function.get('name') or ''}{function.get('arguments') or ''}" for function in functions
        )

    def _tool_call(self, part: JSON) -> None:
        """Join a piece of a tool call to what came before: names come once, arguments in pieces."""
        index = part.get("index", 0)
        call = self.tool_calls.setdefault(
            index, {"id": None, "type": "function", "function": {"arguments": ""}}
        )
        call["id"] = part.get("id") or call["id"]
        function = part.get("function") or {}
        if function.get("name"):
            call["function"]["name"] = function["name"]
        arguments = function.get("arguments") or ""
        call["function"]["arguments"] += arguments
        self.received += len(arguments)


def _message(body: JSON) -> JSON:
    """The assistant's message of a whole answer; {} where the shape is unexpected."""
    choices = body.get("choices") or [{}]
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    return message if isinstance(message, dict) else {}
