"""Streams that outlive their sockets: started once, read from any frame on, by whoever started them.

    stream = await live.start(call, "c1")     the run, with a stream of frames as its outlet
    reader = stream.attach()                  … frames = await reader.read() …
    stream.detach(reader)                     the call goes on for LLMHUB_STREAM_GRACE_SECONDS
    found = await live.find(stream_id, caller)

A finished stream can be read for KEPT_SECONDS. With Redis its frames are mirrored there, so that another
process can serve them: `shared`.
"""

import asyncio
from collections.abc import Callable
from typing import ClassVar

from django.conf import settings

from completions import control, pipeline
from completions.answering import Answering
from completions.live import shared
from completions.live.shared import RemoteStream, mirror
from completions.live.stream import LiveStream, owner_of
from completions.types import Call, Caller

__all__ = ["LiveStream", "RemoteStream", "find", "forget", "get", "listen", "start"]

KEPT_SECONDS = 300.0
KEPT_BYTES = 256 << 20  # of all finished streams of this process: then the oldest go before their time

_streams: dict[str, LiveStream] = {}


class _Finished:
    """Streams that have ended, oldest first, and their bytes: there may be tens of thousands."""

    sizes: ClassVar[dict[str, int]] = {}
    size = 0


async def start(call: Call, client_id: str) -> LiveStream:
    """The stream of a call that was begun. Raises LLMServiceError when it may not be made."""
    made: list[LiveStream] = []

    def outlet(run: Answering) -> LiveStream:
        stream = LiveStream(run, client_id, settings.LLMHUB_STREAM_GRACE_SECONDS, mirror(), _retire)
        _streams[stream.id] = stream
        made.append(stream)
        return stream

    await pipeline.start(call, outlet)
    return made[0]


async def find(stream_id: str, caller: Caller) -> LiveStream | RemoteStream | None:
    """The stream, here or at another process; None where there is none, or it is somebody else's.

    Raises UnavailableError where that cannot be known now.
    """
    stream = _streams.get(stream_id)
    if stream is not None:
        return stream if stream.owner == owner_of(caller) else None
    return await RemoteStream.find(stream_id, owner_of(caller))


def listen() -> None:
    """Do what other processes ask for this one's streams."""
    control.handle(
        "live.read", lambda message: _with(message, LiveStream.heard_elsewhere, shared.LEASE_SECONDS)
    )
    control.handle("live.cancel", lambda message: _with(message, LiveStream.cancel))


def _with(message: control.Message, do: Callable[..., None], *arguments: float) -> None:
    if (stream := _streams.get(message["stream"])) is not None:
        do(stream, *arguments)


def get(stream_id: str) -> LiveStream | None:
    """A stream of this process, whosever it is."""
    return _streams.get(stream_id)


def forget() -> None:
    """Know of no stream: for tests."""
    _streams.clear()
    _Finished.sizes.clear()
    _Finished.size = 0


def _retire(stream: LiveStream) -> None:
    """It has ended: keep it for who comes back."""
    _Finished.sizes[stream.id] = stream.record.size
    _Finished.size += stream.record.size
    while _Finished.size > KEPT_BYTES:
        _drop(next(iter(_Finished.sizes)))
    asyncio.get_running_loop().call_later(KEPT_SECONDS, _drop, stream.id)


def _drop(stream_id: str) -> None:
    """Doing so twice changes nothing."""
    size = _Finished.sizes.pop(stream_id, None)
    if size is not None:
        _Finished.size -= size
        _streams.pop(stream_id, None)
