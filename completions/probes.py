"""What load balancers and monitoring ask: /healthz (the process lives), /readyz (it takes calls), /metrics.

An ASGI application beside Django: it answers while the database is away, and enters no request cycle.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from completions import keys, ledger, metrics, running
from providers import database

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOK_SECONDS = 1.0  # for which an answer of the database speaks
JSON_TYPE = "application/json"
PROXIED = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via"))


async def application(scope: Any, receive: Receive, send: Send) -> None:
    """ASGI: one of PROBES."""
    if scope["method"] not in ("GET", "HEAD"):
        await _answer(send, 405, {"error": "use GET"}, [(b"allow", b"GET")])
        return
    status, body, content_type = await PROBES[scope["path"]](scope)
    challenge = [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await _answer(send, status, body, challenge, content_type)


async def health(scope: Any) -> tuple[int, Any, str]:
    """200 as long as this process answers at all."""
    return 200, {"status": "ok"}, JSON_TYPE


async def ready(scope: Any) -> tuple[int, Any, str]:
    """200 where a new call would be taken: the database is there, and the process is not about to stop."""
    checks = {"process": "draining" if running.is_draining() else "ok", "database": await _database()}
    good = all(found == "ok" for found in checks.values())
    return (200 if good else 503), {"status": "ready" if good else "not ready", "checks": checks}, JSON_TYPE


async def told(scope: Any) -> tuple[int, Any, str]:
    """Prometheus' figures, for who shows LLMHUB_METRICS_TOKEN."""
    if problem := _metrics_problem(dict(scope["headers"])):
        return 401, {"error": problem}, JSON_TYPE
    return 200, await asyncio.to_thread(metrics.exposition), metrics.CONTENT_TYPE


PROBES = {"/healthz": health, "/readyz": ready, "/metrics": told}


def _metrics_problem(headers: dict[bytes, bytes]) -> str:
    """Without a token they are for this machine alone, and what a proxy brings came from elsewhere."""
    token = settings.LLMHUB_METRICS_TOKEN
    if not token:
        alone = settings.LLMHUB_LISTENS_ON_LOOPBACK and not headers.keys() & PROXIED
        return "" if alone else "Set LLMHUB_METRICS_TOKEN, and send it as Authorization: Bearer …."
    shown = keys.presented(headers.get(b"authorization", b"").decode("latin-1"), "") or ""
    right = hmac.compare_digest(shown.encode(), token.encode())
    return "" if right else "The token is missing or wrong: send Authorization: Bearer LLMHUB_METRICS_TOKEN."


class _Looked:
    at = float("-inf")
    found = ""


async def _database() -> str:
    """ "ok", or "away". Asked at most once a second, however many ask here."""
    if ledger.is_away() or database.is_away():
        return "away"
    if time.monotonic() - _Looked.at >= LOOK_SECONDS:
        _Looked.at = time.monotonic()
        _Looked.found = await asyncio.to_thread(_look)
    return _Looked.found


def _look() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return "ok"
    except (DatabaseError, InterfaceError):
        return "away"
    finally:
        connection.close()


async def _answer(
    send: Send, status: int, body: Any, headers: list[tuple[bytes, bytes]], content_type: str = JSON_TYPE
) -> None:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    sent = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(data)),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": data})
