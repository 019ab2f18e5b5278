"""The contract of a driver: one wire dialect each. No ORM, no Django inside.

A driver is stateless; what it needs of a provider comes in as an `Endpoint` or `Target`. It raises the tree
of `providers.errors` and nothing else (cancellation apart).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping

from providers.types import JSON, Answer, Endpoint, ModelInfo, StreamChunk, Target, Validation

HeaderListener = Callable[
    [str, Mapping[str, str]], None
]  # provider slug, the answer's headers (lower-case names)


class Driver(ABC):
    """One wire dialect."""

    @abstractmethod
    async def complete(self, target: Target, body: JSON, *, deadline: float) -> Answer:
        """One whole answer.

        `body` is an OpenAI chat completion request (`messages` and parameters; its `model` and `stream` are
        set here). `deadline` is the loop time (`loop.time()`) by which the call must end. Raises
        UpstreamError.
        """

    @abstractmethod
    def stream(self, target: Target, body: JSON, *, deadline: float) -> AsyncGenerator[StreamChunk, None]:
        """The answer chunk by chunk; ends normally only after a finish_reason or [DONE] was seen.

        Closing the generator closes the upstream connection. Raises UpstreamError, before or between chunks.
        """

    @abstractmethod
    async def list_models(self, endpoint: Endpoint) -> list[ModelInfo]:
        """The models the upstream itself offers to this key. Raises UpstreamError."""

    @abstractmethod
    async def validate(self, endpoint: Endpoint) -> Validation:
        """A real call with the stored key. Never raises UpstreamError: the outcome says what was seen."""
