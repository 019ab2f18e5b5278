"""`/ws/completions/`: a browser's way to call. Many streams on one socket, each of which survives it.

The frames are in docs/streaming.md. Whatever takes time is a task of its own: a consumer handles one message
at a time, and a cancel or the end of the socket must not wait behind a stream.
"""

import asyncio
import logging
from contextvars import Context
from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson
from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from completions import keys, live, metrics, revocation, sockets
from completions.accounts import akey, aproject
from completions.errors import InvalidRequestError, LLMServiceError, RateLimitError
from completions.live import LiveStream, RemoteStream
from completions.live.frames import refused
from completions.models import State
from completions.socket_auth import NOT_AUTHENTICATED, Refused, admitted, by_ticket
from completions.types import Caller
from completions.v1.bodies import checked
from completions.v1.errors import shape
from providers.types import Operation

logger = logging.getLogger(__name__)

LIMITS, FLOODING = 4429, 1008  # close codes
NAME_CAP = 64  # characters of a caller's id for a stream


class CompletionConsumer(AsyncWebsocketConsumer):  # type: ignore[misc] # Channels has no types
    """One socket."""

    channel_layer_alias = "none"  # tokens go straight to the socket

    def __init__(self) -> None:
        super().__init__()
        self.caller: Caller | None = None
        self.pumps: dict[str, asyncio.Task[None]] = {}  # by the caller's id
        self.reading: dict[str, LiveStream | RemoteStream] = {}
        self.pace = sockets.Pace(settings.LLMHUB_SOCKET_MESSAGES_PER_SECOND)
        self.place: sockets.Place | None = None
        self.watch: sockets.Watch | None = None
        self.closing = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.cut = sockets.cutter(receive)
        await super().__call__(scope, receive, send)

    async def dispatch(self, message: Any) -> None:
        """As Channels does it, without a look at the database before every message."""
        await getattr(self, get_handler_name(message))(message)

    # --- the socket

    async def connect(self) -> None:
        try:
            found = await admitted(self.scope)
        except Refused as refusal:
            await self.accept()
            await self.leave(refusal.code, str(refusal))
            return
        await self.accept(found.subprotocol)
        self.watch = sockets.Watch(self, settings.LLMHUB_SOCKET_IDLE_SECONDS)
        if found.caller is not None:
            await self.enter(found.caller)

    async def enter(self, caller: Caller) -> None:
        """It is known who it is."""
        try:
            self.place = sockets.take_place(caller)
        except RateLimitError as error:
            await self.leave(LIMITS, error.message)
            return
        self.caller = caller
        revocation.watch(self, caller.api_key_id)

    async def disconnect(self, code: int) -> None:
        self.closing = True
        if self.watch is not None:
            self.watch.stop()
        if self.place is not None:
            self.place.leave()
        revocation.unwatch(self, self.caller.api_key_id if self.caller else None)
        for pump in list(self.pumps.values()):
            pump.cancel()

    async def leave(self, code: int, reason: str) -> None:
        """Close the socket, and say why."""
        if not self.closing:
            self.closing = True
            await self.close(code, reason[:120])

    async def fail(self, error: LLMServiceError, state: State = State.CANCELLED) -> None:
        """The key behind it is no longer in force (see `revocation`). Its calls end by themselves."""
        await self.leave(NOT_AUTHENTICATED, error.message)

    # --- what comes in

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.closing:
            return
        if self.watch is not None:
            self.watch.heard()
        if not self.pace.allows():
            await self.leave(FLOODING, "Too many messages a second.")
            return
        frame = _parsed(text_data)
        kind = frame.get("type")
        if self.caller is None and kind != "auth":
            await self.leave(NOT_AUTHENTICATED, "The first frame must be auth, with a ticket.")
            return
        handler = self.HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            known = ", ".join(self.HANDLERS)
            await self.refuse(frame, InvalidRequestError(f"type must be one of {known}.", param="type"))
            return
        try:
            await handler(self, frame)
        except LLMServiceError as error:
            await self.refuse(frame, error)

    async def on_auth(self, frame: dict[str, Any]) -> None:
        if self.caller is not None:
            return
        try:
            await self.enter(await by_ticket(str(frame.get("ticket"))))
        except Refused as refusal:
            await self.leave(refusal.code, str(refusal))

    async def on_start(self, frame: dict[str, Any]) -> None:
        """{"type": "start", "id", "request"}: admission takes a moment, so it is part of the pump."""
        name = self.new_name(frame)
        request = frame.get("request")
        if not isinstance(request, dict):
            raise InvalidRequestError("request must be a chat completion body.", param="request")
        self.pump(name, self.start(name, request))

    async def on_resume(self, frame: dict[str, Any]) -> None:
        """{"type": "resume", "stream", "last_seq"}: every later frame of it, from here or elsewhere."""
        stream_id, last = frame.get("stream"), frame.get("last_seq", -1)
        if not isinstance(stream_id, str) or type(last) is not int or last < -1:
            raise InvalidRequestError("resume needs stream, and last_seq from -1 on.", param="last_seq")
        self.pump(stream_id, self.resume(stream_id, last + 1))

    async def on_cancel(self, frame: dict[str, Any]) -> None:
        """{"type": "cancel", "id"}. One that ended meanwhile, or is not known, needs no cancelling."""
        name = str(frame.get("id"))
        stream = self.reading.get(name)
        if isinstance(stream, LiveStream):
            stream.cancel()
        elif stream is not None:
            await stream.cancel()
        elif name in self.pumps:  # it is being admitted: nothing was called yet
            self.pumps[name].cancel()
            await self.say(orjson.dumps({"type": "cancelled", "id": name, "stream": None, "seq": 0}).decode())

    async def on_ping(self, frame: dict[str, Any]) -> None:
        await self.say('{"type":"pong"}')

    HANDLERS: ClassVar[dict[str, Any]] = {
        "auth": on_auth,
        "start": on_start,
        "resume": on_resume,
        "cancel": on_cancel,
        "ping": on_ping,
    }

    # --- streams

    def new_name(self, frame: dict[str, Any]) -> str:
        name = frame.get("id")
        if not isinstance(name, str) or not 0 < len(name) <= NAME_CAP:
            raise InvalidRequestError(f"id must be a text of 1 to {NAME_CAP} characters.", param="id")
        if name in self.pumps:
            raise InvalidRequestError(f"A stream {name!r} runs on this socket already.", param="id")
        return name

    def pump(self, name: str, work: Any) -> None:
        """Run `work` beside the socket. Raises RateLimitError when as many run as may."""
        if len(self.pumps) >= settings.LLMHUB_STREAMS_PER_SOCKET:
            work.close()
            raise RateLimitError(
                f"{settings.LLMHUB_STREAMS_PER_SOCKET} streams run on this socket; that is the most."
            )
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self.pumps[name] = task
        task.add_done_callback(lambda _: self.pumps.pop(name, None))

    async def start(self, name: str, request: dict[str, Any]) -> None:
        try:
            caller = await self.in_force()
            stream = await live.start(checked(caller, Operation.CHAT, {**request, "stream": True}), name)
        except LLMServiceError as error:
            await self.refuse({"id": name}, error)
        else:
            await self.relay(stream, 0)

    async def resume(self, stream_id: str, place: int) -> None:
        assert self.caller is not None  # noqa: S101 - only known callers get here
        stream = await live.find(stream_id, self.caller)
        if stream is None or (isinstance(stream, LiveStream) and place < stream.record.first):
            what = "is not known (any more)" if stream is None else "is not kept that far back"
            error = InvalidRequestError(f"The stream {what}.", param="stream")
            await self.refuse({"resumed": stream_id}, error)
        else:
            await self.relay(stream, place)

    async def relay(self, stream: LiveStream | RemoteStream, place: int) -> None:
        """Frames of a stream as they come."""
        self.reading[stream.client_id] = stream
        try:
            if isinstance(stream, LiveStream):
                await self.relay_own(stream, place)
            else:
                async for frames in stream.frames(place):
                    await self.send_all(frames)
        finally:
            self.reading.pop(stream.client_id, None)

    async def relay_own(self, stream: LiveStream, place: int) -> None:
        reader = stream.attach(place)
        try:
            while frames := await reader.read():
                await self.send_all(frames)
        finally:
            stream.detach(reader, slow=self.watch is not None and self.watch.is_slow)

    async def in_force(self) -> Caller:
        """The caller, if its key still is. Raises AuthenticationError."""
        caller = self.caller
        assert caller is not None  # noqa: S101 - only known callers get here
        if caller.api_key_id is not None:
            key, project = await akey(caller.api_key_id), await aproject(caller.project_id)
            if (error := keys.refusal(key, project, datetime.now(UTC))) is not None:
                raise error
        return caller

    # --- what goes out

    async def send_all(self, frames: list[str]) -> None:
        watch = self.watch
        for frame in frames:
            if watch is not None:
                watch.sending()
            await self.base_send({"type": "websocket.send", "text": frame})
        if watch is not None:
            watch.sent()

    async def say(self, text: str) -> None:
        await self.send_all([text])

    async def refuse(self, frame: dict[str, Any], error: LLMServiceError) -> None:
        """Tell an error that is no stream's."""
        told = shape(error)
        metrics.ERRORS.labels("ws", told["error"]["code"]).inc()
        name = frame.get("id")
        if "resumed" in frame:
            told = {**told, "resumed": frame["resumed"]}
        await self.say(refused(name if isinstance(name, str) else "", told))


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        frame = orjson.loads(text or "")
    except orjson.JSONDecodeError:
        return {}
    return frame if isinstance(frame, dict) else {}
