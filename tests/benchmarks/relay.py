"""The floor of this stack: uvicorn, bare ASGI and aiohttp, and not one feature.

`python -m uvicorn tests.benchmarks.relay:application` passes every POST on to UPSTREAM (`http://host:port`),
path and body as they came, and the answer back: at once, or piece by piece where it is a stream. A GET is
answered here.
"""

import os
from typing import Any

import aiohttp

UPSTREAM = os.environ.get("UPSTREAM", "")
HEADERS = {"authorization": "Bearer sk-upstream", "content-type": "application/json"}


class Relay:
    """One session for the process, made in its loop."""

    session: aiohttp.ClientSession

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["method"] == "GET":
            await whole(send, 200, b"text/plain", b"ok")
        else:
            await self.relay(scope["path"], await body_of(receive), send)

    async def relay(self, path: str, body: bytes, send: Any) -> None:
        async with self.session.post(UPSTREAM + path, data=body, headers=HEADERS) as answer:
            content_type = answer.headers.get("content-type", "").encode()
            if not content_type.startswith(b"text/event-stream"):
                await whole(send, answer.status, content_type, await answer.read())
                return
            headers = [(b"content-type", content_type)]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def live(self, receive: Any, send: Any) -> None:
        await receive()
        self.session = upstream_session()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.session.close()
        await send({"type": "lifespan.shutdown.complete"})


def upstream_session() -> aiohttp.ClientSession:
    """Any number of connections, no time limits, no decompression: nothing but the call."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("accept-encoding",),
    )


async def body_of(receive: Any) -> bytes:
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


async def whole(send: Any, status: int, content_type: bytes, content: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


application = Relay()
