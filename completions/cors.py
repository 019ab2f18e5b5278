"""CORS: pages of other origins may call the hub where LLMHUB_CORS_ORIGINS lists them; by default none may.

An ASGI wrapper of every HTTP surface that takes keys. Cookies are never let through: pages elsewhere use keys
or tickets.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from completions.limits.bucket import NAMES

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]

ALLOWED = (
    "authorization",
    "cache-control",
    "content-type",
    "anthropic-version",
    "anthropic-beta",
    "idempotency-key",
    "x-api-key",
)
ALLOWED_PREFIXES = ("x-stainless-", "x-llmhub-")
EXPOSED_NAMES = (
    *("x-request-id", "request-id", "x-should-retry", "retry-after", "age"),
    *(
        f"x-llmhub-{name}"
        for name in ("model", "provider", "cache", "cache-similarity", "attempts", "cost-usd")
    ),
    *(name.decode() for names in NAMES.values() for name in names),
)
EXPOSED = ", ".join(EXPOSED_NAMES).encode()
METHODS = b"GET, POST, DELETE, OPTIONS"
PREFLIGHT_SECONDS = b"600"


class CORS:
    """Lets pages of `origins` read what `application` answers."""

    def __init__(self, application: Application, origins: Collection[str]) -> None:
        self.application = application
        self.origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin not in self.origins:
            await self.application(scope, receive, send)
        elif scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _preflight(origin, headers, send)
        else:
            await self.application(scope, receive, _readable(origin, send))


def _readable(origin: bytes, send: Send) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            shown = [*_origin(origin), (b"access-control-expose-headers", EXPOSED)]
            message = {**message, "headers": [*message["headers"], *shown]}
        await send(message)

    return marked


async def _preflight(origin: bytes, headers: dict[bytes, bytes], send: Send) -> None:
    asked = headers.get(b"access-control-request-headers", b"").decode("latin-1").lower()
    names = [name.strip() for name in asked.split(",")]
    granted = [name for name in names if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)]
    answer = [
        *_origin(origin),
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", ", ".join(granted).encode()),
        (b"access-control-max-age", PREFLIGHT_SECONDS),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": answer})
    await send({"type": "http.response.body", "body": b""})


def _origin(origin: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
