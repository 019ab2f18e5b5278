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

from django.conf import settings

from completions import control, pipeline
from completions.live.shared import LEASE_SECONDS, RemoteStream, mirror
from completions.live.stream import LiveStream, owner_of
from completions.run import Run
from completions.types import Call, Caller

__all__ = ["LiveStream", "RemoteStream", "find", "forget", "get", "listen", "start"]

KEPT_SECONDS = 300.0
KEPT_BYTES = 256 << 20  # of all finished streams of this process: then the oldest go before their time

_streams: dict[str, LiveStream] = {}


async def start(call: Call, client_id: str) -> LiveStream:
    """The stream of a call that was begun. Raises LLMServiceError when it may not be made."""
    made: list[LiveStream] = []

    def outlet(run: Run) -> LiveStream:
        stream = LiveStream(run, client_id, settings.LLMHUB_STREAM_GRACE_SECONDS, mirror(), _retire)
        _streams[stream.id] = stream
        made.append(stream)
        return stream

    await pipeline.start(call, outlet)
    return made[0]


async def find(stream_id: str, caller: Caller) -> LiveStream | RemoteStream | None:
    """The stream, here or at another process; None where there is none, or it is somebody else's."""
    stream = _streams.get(stream_id)
    if stream is not None:
        return stream if stream.owner == owner_of(caller) else None
    return await RemoteStream.find(stream_id, owner_of(caller))


def listen() -> None:
    """Do what other processes ask for this one's streams."""
    control.handle("live.read", lambda message: _with(message, LiveStream.heard_elsewhere, LEASE_SECONDS))
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


def _retire(stream: LiveStream) -> None:
    """It has ended: keep it for who comes back."""
    asyncio.get_running_loop().call_later(KEPT_SECONDS, _streams.pop, stream.id, None)
    kept = [one for one in _streams.values() if one.over]
    size = sum(one.record.size for one in kept)
    for one in kept:
        if size <= KEPT_BYTES:
            break
        size -= one.record.size
        _streams.pop(one.id, None)
