"""The floor under websockets: a Channels consumer that parses each event and sends one message for it.

`python -m uvicorn tests.benchmarks.ws_echo:application` answers each `start` frame with the stream of
UPSTREAM, and knows neither callers nor a ledger.
"""

import asyncio
import contextlib
import os
from typing import Any

from django.conf import settings

if not settings.configured:
    settings.configure()  # Channels asks for its layers

import aiohttp
import orjson
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from tests.benchmarks.relay import HEADERS, upstream_session

URL = os.environ.get("UPSTREAM", "") + "/v1/chat/completions"


class Process:
    """What one server process has of its own."""

    session: aiohttp.ClientSession | None = None


class Echo(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """A pump for each stream, so that the socket goes on listening."""

    async def connect(self) -> None:
        self.pumps: set[asyncio.Task[None]] = set()
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        frame = orjson.loads(text_data or b"{}")
        if frame.get("type") == "start":
            pump = asyncio.create_task(self.pump(frame["id"], orjson.dumps(frame["request"])))
            self.pumps.add(pump)
            pump.add_done_callback(self.pumps.discard)

    async def disconnect(self, code: int) -> None:
        for pump in self.pumps:
            pump.cancel()

    async def pump(self, name: str, body: bytes) -> None:
        with contextlib.suppress(OSError):  # the socket went away, or the upstream did
            await self.relay(name, body)

    async def relay(self, name: str, body: bytes) -> None:
        if Process.session is None:
            Process.session = upstream_session()
        async with Process.session.post(URL, data=body, headers=HEADERS) as answer:
            seq = 0
            async for data in events(answer.content):
                for choice in orjson.loads(data)["choices"]:
                    if content := choice["delta"].get("content"):
                        await self.frame(type="delta", id=name, seq=seq, content=content)
                        seq += 1
        await self.frame(type="done", id=name, seq=seq)

    async def frame(self, **fields: Any) -> None:
        await self.send(orjson.dumps(fields).decode())


async def events(stream: aiohttp.StreamReader) -> Any:
    """The data of each server-sent event up to [DONE]."""
    pending = b""
    async for piece in stream.iter_any():
        *whole, pending = (pending + piece).split(b"\n\n")
        for event in whole:
            data = event.removeprefix(b"data: ")
            if data != b"[DONE]":
                yield data


application = ProtocolTypeRouter({"websocket": URLRouter([path("ws/completions/", Echo.as_asgi())])})
