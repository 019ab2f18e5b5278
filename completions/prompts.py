"""The prompt of a call, by whatever wire it came: how large it can be, and its tokens, counted once."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from completions import tokens
from completions.tokens import ChatPrompt, TokenCount
from providers.types import Operation

COUNT_INLINE_BYTES = 4096  # a prompt up to this size is counted on the event loop: a thread would cost more
FIELD = {Operation.COMPLETION: "prompt", Operation.EMBEDDING: "input"}


class Prompt:
    """What a call sends to be read. `size`: its tokens at most, for any model."""

    def __init__(self, operation: Operation, body: Mapping[str, Any]) -> None:
        self._counts: dict[str, TokenCount] = {}
        self._parts: ChatPrompt | _Inputs
        if operation is Operation.CHAT:
            self._parts = ChatPrompt(body.get("messages") or (), body.get("tools"))
        else:
            self._parts = _Inputs(inputs(body.get(FIELD[operation])))
        self.size = self._parts.upper_bound()

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


class _Inputs:
    """Single inputs of the older wires, each a text or a list of tokens."""

    def __init__(self, given: Sequence[Any]) -> None:
        self._given = given

    def upper_bound(self) -> int:
        return sum(
            len(one) if isinstance(one, list) else len(str(one).encode("utf-8", "surrogatepass"))
            for one in self._given
        )

    def count(self, model: str) -> TokenCount:
        counts = [
            TokenCount(len(one), exact=True) if isinstance(one, list) else tokens.count_text(str(one), model)
            for one in self._given
        ]
        return TokenCount(sum(one.count for one in counts), all(one.exact for one in counts))


def inputs(given: Any) -> list[Any]:
    """The single inputs of `prompt` or `input`: each a text, or a list of tokens."""
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return given
    return [given]
