"""OpenAI's wire, and everything that speaks it."""

from collections.abc import Mapping

from providers.drivers import wire
from providers.drivers.base import Driver, HeaderListener, Sink
from providers.drivers.chunks import answer_of, choices_asked, chunk_of_answer, request_bytes
from providers.drivers.stream import Stream
from providers.types import JSON, Answer, Endpoint, ModelInfo, Operation, Target, Validation

PATHS = {
    Operation.CHAT: "/chat/completions",
    Operation.COMPLETION: "/completions",
    Operation.EMBEDDING: "/embeddings",
}


def _unheard(provider: str, headers: Mapping[str, str]) -> None:
    """Nobody listens."""


class OpenAIDriver(Driver):
    """`heard` gets the headers of every answer, good or bad."""

    def __init__(self, heard: HeaderListener = _unheard) -> None:
        self._heard = heard

    async def complete(self, target: Target, operation: Operation, body: JSON, *, deadline: float) -> Answer:
        endpoint = target.endpoint
        data = request_bytes(target, operation, body, stream=False)
        exchange = await wire.begin(endpoint, self._request(endpoint, operation), data, deadline)
        try:
            await wire.check(endpoint, exchange, self._heard)
            return answer_of(endpoint, await exchange.whole(), operation)
        finally:
            exchange.close()

    async def stream(
        self, target: Target, operation: Operation, body: JSON, sink: Sink, *, deadline: float
    ) -> None:
        endpoint = target.endpoint
        data = request_bytes(target, operation, body, stream=True)
        answer = Stream(endpoint, sink, deadline, choices_asked(target, operation, body))
        exchange = await wire.begin(
            endpoint, self._request(endpoint, operation), data, deadline, by=answer.first_by
        )
        try:
            await wire.check(endpoint, exchange, self._heard)
            kind = exchange.headers.get("content-type", "").lower()
            if kind.startswith("text/html"):  # a proxy's: read as events it would be an answer cut short
                raise exchange.invalid("a page of HTML")
            if kind.startswith("application/json"):
                sink.put([chunk_of_answer(endpoint, await exchange.whole(), operation)])
            else:
                await answer.read(exchange)
        finally:
            exchange.close(answer.linger_seconds)

    async def list_models(self, endpoint: Endpoint) -> list[ModelInfo]:
        from providers.drivers import control

        return await control.list_models(endpoint, self.headers(endpoint), self._heard)

    async def validate(self, endpoint: Endpoint) -> Validation:
        from providers.drivers import control

        return await control.validate(endpoint, self.headers(endpoint), self._heard)

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        """What this dialect sends besides the body's type: who we are to this provider."""
        headers = dict(endpoint.headers)
        if endpoint.api_key:
            key = endpoint.api_key.reveal()
            name = endpoint.quirks.auth_header
            headers[name] = f"Bearer {key}" if name == "authorization" else key
        return headers

    def _request(self, endpoint: Endpoint, operation: Operation) -> wire.Request:
        known = endpoint.prepared.get(operation)
        if known is None:
            url = endpoint.base_url.rstrip("/") + PATHS[operation]
            headers = {"content-type": "application/json", **self.headers(endpoint)}
            known = endpoint.prepared[operation] = wire.request(endpoint, "POST", url, headers)
        request: wire.Request = known
        return request
