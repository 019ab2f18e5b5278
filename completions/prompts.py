"""The prompt of a call, by whatever wire it came: how large it can be, and its tokens, counted once."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from completions import tokens
from completions.tokens import ChatPrompt, TokenCount
from providers.types import Operation
from providers.wire_json import dumped

COUNT_INLINE_BYTES = 4096  # a prompt up to this size is counted on the event loop: a thread would cost more
ROUGH_BYTES_PER_TOKEN = 4
FIELD = {Operation.CHAT: "messages", Operation.COMPLETION: "prompt", Operation.EMBEDDING: "input"}
NO_PROMPT = "<|endoftext|>"  # what the older wire completes where no prompt is given
# They say how to answer, or what is noted of the call; the model reads none of them. What is not known here
# counts as read: vendors have their own names for documents, grammars and templates.
UNREAD = frozenset(
    {
        "audio", "logit_bias", "metadata", "modalities", "model", "prompt_cache_key",
        "prompt_cache_retention", "reasoning", "reasoning_effort", "safety_identifier", "service_tier",
        "stop", "stream_options", "thinking", "timeout", "tool_choice", "user", "verbosity",
    }
)  # fmt: skip
WORDED = (str, dict, list, tuple)  # a number or a flag is no text to read


class Prompt:
    """What a call sends to be read.

    `size`: its tokens at most, for any model, but for what it only points at (`open_ended`). `rough`: its
    tokens as a rule.
    """

    def __init__(self, operation: Operation, body: Mapping[str, Any]) -> None:
        self._counts: dict[str, TokenCount] = {}
        self._parts: ChatPrompt | _Inputs
        if operation is Operation.CHAT:
            beside = read_beside(operation, body)
            self._parts = ChatPrompt(body.get("messages") or (), beside.pop("tools", None), beside)
        else:
            beside = read_beside(operation, body) if operation is Operation.COMPLETION else {}
            self._parts = _Inputs(inputs(body.get(FIELD[operation])), beside)
        self.open_ended = self._parts.open_ended
        self.size = self._parts.upper_bound()
        self.rough = self._parts.rough(ROUGH_BYTES_PER_TOKEN)

    def count(self, model: str) -> TokenCount:
        """Its tokens for `model`. May take a while: see `acount`."""
        found = self._counts.get(model)
        if found is None:
            found = self._counts[model] = self._parts.count(model)
        return found

    async def acount(self, model: str) -> TokenCount:
        """`count` for coroutines: a long prompt is counted in a thread."""
        if model in self._counts or (self.size <= COUNT_INLINE_BYTES and tokens.is_loaded(model)):
            return self.count(model)
        return await asyncio.to_thread(self.count, model)

    async def at_most(self, models: Sequence[str]) -> int:
        """Its tokens by that of `models` which counts most, with the largest images and files."""
        each = dict.fromkeys(models)
        return max([(await self.acount(model)).count + self._parts.slack(model) for model in each])


def read_beside(operation: Operation, body: Mapping[str, Any]) -> dict[str, Any]:
    """What a model reads of a request beside its messages or prompt: tools, schemas and such."""
    main = FIELD[operation]
    return {
        name: value
        for name, value in body.items()
        if value and isinstance(value, WORDED) and name != main and name not in UNREAD
    }


class _Inputs:
    """Single inputs of the older wires, each a text or a list of tokens. `beside`: what else is read."""

    open_ended = False

    def __init__(self, given: Sequence[Any], beside: Mapping[str, Any]) -> None:
        self._given = given
        self._beside = dumped(beside).decode() if beside else ""
        self._size = len(self._beside.encode()) + sum(
            len(one) if isinstance(one, list) else len(str(one).encode("utf-8", "surrogatepass"))
            for one in given
        )

    def upper_bound(self) -> int:
        return self._size

    def rough(self, bytes_per_token: int) -> int:
        return self._size // bytes_per_token

    def count(self, model: str) -> TokenCount:
        counts = [
            TokenCount(len(one), exact=True) if isinstance(one, list) else tokens.count_text(str(one), model)
            for one in self._given
        ]
        beside = tokens.count_text(self._beside, model).count if self._beside else 0
        exact = not beside and all(one.exact for one in counts)
        return TokenCount(sum(one.count for one in counts) + beside, exact)

    def slack(self, model: str) -> int:
        return 0


def inputs(given: Any) -> list[Any]:
    """The single inputs of `prompt` or `input`: each a text, or a list of tokens."""
    if given is None:
        return [NO_PROMPT]
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return given
    return [given]
