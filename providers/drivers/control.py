"""The control plane: listing models and testing keys, by the openai SDK over our own wire.

The SDK speaks through a transport that sends with `wire`: the same egress check, no redirect, no environment.
The key is put on by us; the SDK never sees it.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from providers.drivers import wire
from providers.drivers.base import HeaderListener
from providers.drivers.chunks import invalid, parsed
from providers.drivers.connections import Pool
from providers.errors import UpstreamAuthError, UpstreamError, UpstreamRejected
from providers.types import Endpoint, ModelInfo, Validation

MAX_SECONDS = 15.0
MAX_PAGES = 20
WINDOW_NAMES = ("context_window", "context_length", "max_context_length", "max_model_len", "max_input_tokens")
OUTPUT_NAMES = ("max_completion_tokens", "max_output_tokens", "max_tokens")
# No such model anywhere: a vendor that lists no models still checks the key before it looks for the model.
NO_MODEL = "llmhub-key-check"


class Transport(httpx2.AsyncBaseTransport):
    """Sends the SDK's requests to one provider; raises UpstreamError, which the SDK lets through."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], heard: HeaderListener) -> None:
        self.endpoint = endpoint
        self.headers = {"accept": "application/json", "content-type": "application/json", **headers}
        self.heard = heard
        self.pool = Pool()  # of this one call: its loop may end with it

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        endpoint = self.endpoint
        seconds = min(MAX_SECONDS, endpoint.timeouts.total)
        deadline = asyncio.get_running_loop().time() + seconds
        data = await request.aread()
        asked = wire.request(endpoint, request.method, str(request.url), self.headers)
        exchange = await wire.begin(endpoint, asked, data or b"", deadline, pool=self.pool)
        try:
            await wire.check(endpoint, exchange, self.heard)
            body = await exchange.whole()
        finally:
            exchange.close()
        return httpx2.Response(exchange.status, content=body, request=request)

    async def aclose(self) -> None:
        self.pool.close()


async def list_models(
    endpoint: Endpoint,
    headers: Mapping[str, str],
    heard: HeaderListener,
    query: Mapping[str, str] | None = None,
) -> list[ModelInfo]:
    """Every page of GET /models. Raises UpstreamError."""
    found: dict[str, ModelInfo] = {}
    after: dict[str, str] = {}
    async with _client(endpoint, headers, heard) as client:
        for _ in range(MAX_PAGES):
            page = await _page(client, endpoint, {**(query or {}), **after})
            items = page.get("data", page.get("models")) if isinstance(page, dict) else page
            if not isinstance(items, list):
                raise invalid(endpoint, "a model list without data")
            found |= {info.name: info for item in items if (info := _info(item))}
            last = page.get("last_id") if isinstance(page, dict) and page.get("has_more") else None
            if not isinstance(last, str) or after == {"after_id": last}:
                break
            after = {"after_id": last}
    return list(found.values())


async def validate(
    endpoint: Endpoint,
    headers: Mapping[str, str],
    heard: HeaderListener,
    query: Mapping[str, str] | None = None,
) -> Validation:
    """What a real call with the stored key shows."""
    started = time.monotonic()
    models: int | None = None
    failed: UpstreamError | None = None
    message = "The key is accepted. This vendor has no list of models, so their names are not checked."
    try:
        if endpoint.quirks.lists_models:
            models = len(await list_models(endpoint, headers, heard, query))
            message = f"Connected; {models} model{'' if models == 1 else 's'} offered."
        else:
            await _try_key(endpoint, headers, heard)
    except UpstreamError as error:
        failed = error
        message = _explained(endpoint, error)
    return Validation(
        ok=failed is None,
        message=message,
        latency_ms=round((time.monotonic() - started) * 1000),
        models=models,
        auth_failed=isinstance(failed, UpstreamAuthError),
    )


def _client(endpoint: Endpoint, headers: Mapping[str, str], heard: HeaderListener) -> openai.AsyncOpenAI:
    http = httpx2.AsyncClient(transport=Transport(endpoint, headers, heard), trust_env=False)
    return openai.AsyncOpenAI(
        api_key="held-by-us", base_url=endpoint.base_url, http_client=http, max_retries=0
    )


async def _page(client: openai.AsyncOpenAI, endpoint: Endpoint, query: Mapping[str, str]) -> Any:
    try:
        raw = await client.models.with_raw_response.list(extra_query=dict(query))
        return parsed(raw.http_response.content)
    except (openai.OpenAIError, ValueError):
        raise invalid(endpoint, "a model list that is not JSON") from None


async def _try_key(endpoint: Endpoint, headers: Mapping[str, str], heard: HeaderListener) -> None:
    """Ask a model that does not exist: only a refusal of the key, or silence, is a fault. Costs nothing."""
    async with _client(endpoint, headers, heard) as client:
        try:
            await client.chat.completions.with_raw_response.create(
                model=NO_MODEL, messages=[{"role": "user", "content": "ping"}], max_tokens=1
            )
        except UpstreamRejected:
            pass  # it knows us, and not the model
        except openai.OpenAIError:
            raise invalid(endpoint, "an answer that makes no sense") from None


def _explained(endpoint: Endpoint, error: UpstreamError) -> str:
    if isinstance(error, UpstreamAuthError):
        return f"{error.message}. Enter a valid key." if error.status != 402 else error.message
    if isinstance(error, UpstreamRejected) and error.status == 404:
        return f"Nothing found at {endpoint.base_url}/models (404). Check the base URL; most end in /v1."
    return error.message


def _info(item: Any) -> ModelInfo | None:
    if not isinstance(item, dict):
        return None
    name = item.get("id") or item.get("name") or item.get("model")
    if not isinstance(name, str):
        return None
    owner = item.get("owned_by")
    return ModelInfo(
        name=name.removeprefix("models/"),
        context_window=_size(item, WINDOW_NAMES),
        max_output=_size(item, OUTPUT_NAMES),
        owned_by=owner if isinstance(owner, str) else "",
    )


def _size(item: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    sizes = (item.get(name) for name in names)
    return next((size for size in sizes if type(size) is int and 0 < size < 1 << 31), None)
