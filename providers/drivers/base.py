"""The contract of a driver: one wire dialect each. No ORM, no Django inside.

A driver is stateless; what it needs of a provider comes in as an `Endpoint` or `Target`. It raises the tree
of `providers.errors` and nothing else (cancellation apart). Cancelled before it has sent anything, it raises
NeverSent.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from providers.types import JSON, Answer, Endpoint, ModelInfo, Operation, StreamChunk, Target, Validation

HeaderListener = Callable[
    [str, Mapping[str, str]], None
]  # provider slug, the answer's headers (lower-case names)


class Sink(Protocol):
    """Where a streamed answer goes. Both ends live on one event loop."""

    def put(self, chunks: Sequence[StreamChunk]) -> bool:
        """Take the chunks that came. False: its readers are behind; bring no more before `room` returns."""

    async def room(self) -> None:
        """Wait until the readers have caught up."""


class Driver(ABC):
    """One wire dialect."""

    @abstractmethod
    async def complete(self, target: Target, operation: Operation, body: JSON, *, deadline: float) -> Answer:
        """One whole answer.

        `body` is a request in OpenAI's shape (its `model` and `stream` are set here). `deadline` is the loop
        time (`loop.time()`) by which the call must end. Raises UpstreamError.
        """

    @abstractmethod
    async def stream(
        self, target: Target, operation: Operation, body: JSON, sink: Sink, *, deadline: float
    ) -> None:
        """Bring the answer to `sink` as it comes; return once [DONE] or every finish_reason was seen.

        Nothing is brought before the answer has begun with content: an error until then is the whole answer.
        Cancelling it closes the upstream connection at once. Raises UpstreamError, also in the middle.
        """

    @abstractmethod
    async def list_models(self, endpoint: Endpoint) -> list[ModelInfo]:
        """The models the upstream itself offers to this key. Raises UpstreamError."""

    @abstractmethod
    async def validate(self, endpoint: Endpoint) -> Validation:
        """A real call with the stored key. Never raises UpstreamError: the outcome says what was seen."""
