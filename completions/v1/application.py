"""The routes of `/v1`, and what every one of them has in common."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from django.db import InterfaceError, OperationalError

from completions import pipeline
from completions.errors import CallEndedError, LLMServiceError, UnavailableError
from completions.exchange import NO_WISH, ClientLeft, Exchange, Headers, Receive, Send
from completions.v1 import errors, models
from completions.v1.answers import answered, send_stream, send_whole
from completions.v1.bodies import call_of
from providers.types import Operation

logger = logging.getLogger(__name__)

Handler = Callable[[Exchange], Awaitable[None]]
MODELS = "/v1/models/"


def asking(operation: Operation) -> Handler:
    """The handler of a route that makes calls."""

    async def handle(exchange: Exchange) -> None:
        caller = await exchange.caller("v1")
        call = call_of(caller, operation, await exchange.body())
        if (wish := exchange.cache_wish()) is not NO_WISH:
            call = call._replace(cache=wish)
        run = await pipeline.start(call)
        exchange.begins(run)
        if run.call.stream:
            await send_stream(exchange, run)
        else:
            await send_whole(exchange, run)

    return handle


async def list_models(exchange: Exchange) -> None:
    """`GET /v1/models`."""
    await exchange.answer(200, orjson.dumps(await models.listed(await exchange.caller("v1"))))


async def one_model(exchange: Exchange) -> None:
    """`GET /v1/models/{id}`; an id may hold slashes."""
    name = exchange.path.removeprefix(MODELS).rstrip("/")
    await exchange.answer(200, orjson.dumps(await models.named(await exchange.caller("v1"), name)))


ROUTES: Mapping[str, tuple[str, Handler]] = {
    "/v1/chat/completions": ("POST", asking(Operation.CHAT)),
    "/v1/completions": ("POST", asking(Operation.COMPLETION)),
    "/v1/embeddings": ("POST", asking(Operation.EMBEDDING)),
    "/v1/models": ("GET", list_models),
}


# Where a client asks whose base URL lacks the /v1.
WITHOUT_V1 = frozenset(route.removeprefix("/v1") + end for route in ROUTES for end in ("", "/"))


async def application(scope: Any, receive: Receive, send: Send) -> None:
    """ASGI: HTTP under `/v1`, and WITHOUT_V1. Whatever happens, the answer is JSON in OpenAI's shape."""
    exchange = Exchange(scope, receive, send)
    found = ROUTES.get(exchange.path) or _other_route(exchange.path)
    if found is None:
        what = f"Unknown request URL: {exchange.method} {exchange.path}."
        hint = " Add /v1 to the base URL." if exchange.path in WITHOUT_V1 else ""
        await _refuse(exchange, 404, "unknown_url", what + hint)
        return
    method, handler = found
    if exchange.method != method:
        what = f"{exchange.method} is not allowed for {exchange.path}; use {method}."
        await _refuse(exchange, 405, "method_not_allowed", what, [(b"allow", method.encode())])
        return
    try:
        await handler(exchange)
    except LLMServiceError as error:
        await _tell(exchange, error)
    except ClientLeft:
        pass  # there is nobody to tell
    except (OperationalError, InterfaceError) as error:
        logger.error("database error on /v1: %s", error)
        await _tell(exchange, UnavailableError("The hub's database cannot serve now.", retry_after=5))
    except Exception:
        logger.exception("unexpected error on /v1")
        await _tell(exchange, LLMServiceError("Something went wrong inside the hub. Its log says what."))


def _other_route(path: str) -> tuple[str, Handler] | None:
    """An address with a slash at its end is the same; what follows /v1/models/ is a model's id."""
    if path.endswith("/") and (found := ROUTES.get(path[:-1])):
        return found
    if path.startswith(MODELS) and len(path) > len(MODELS):
        return "GET", one_model
    return None


async def _tell(exchange: Exchange, error: LLMServiceError) -> None:
    if isinstance(error, CallEndedError):
        return  # its reader is gone
    told = errors.told(error)
    errors.count(error)
    call = exchange.answering
    await exchange.refuse(told.status, told.body, told.headers + (answered(call) if call is not None else []))


async def _refuse(
    exchange: Exchange, status: int, code: str, message: str, headers: Headers | None = None
) -> None:
    body = errors.error_object(message, "invalid_request_error", code)
    await exchange.refuse(status, orjson.dumps(body), headers or [])
