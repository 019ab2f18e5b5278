"""An upstream that writes down who called it, by the `user` of each request, and answers slowly."""

from typing import Any

from tests.fakes import FakeUpstream, Received, Step, chunk, chunked, completion, response, sse, stream_head

USED = {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 60}


class Journal(FakeUpstream):
    """Answers in `pieces`, one every `delay` seconds; whole answers after `delay`. Each uses 50 tokens."""

    def __init__(self, *, pieces: int = 10, delay: float = 0.1) -> None:
        super().__init__(models=("model",))
        self.pieces, self.delay = pieces, delay
        self.scripts(self._answer)

    @property
    def calls(self) -> list[Received]:
        """Every request for a completion, in order."""
        return [request for request in list(self.requests) if request.method == "POST"]

    @property
    def markers(self) -> list[str]:
        """The `user` of each of them."""
        return [request.body["user"] for request in self.calls]

    def _answer(self, request: Received) -> list[Step]:
        if not request.body.get("stream"):
            return [self.delay, response(200, completion(usage=USED))]
        events: list[Any] = [chunk({"content": f"piece {number} "}) for number in range(self.pieces)]
        events += [chunk({}, "stop"), chunk(None, usage=USED), "[DONE]"]
        steps: list[Step] = [stream_head()]
        for event in events:
            steps += [self.delay, chunked(sse(event))]
        return [*steps, chunked(b"")]
