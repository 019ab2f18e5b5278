"""`/ws/completions/`: a browser's way to call. Many streams on one socket, each of which survives it.

The frames are in docs/streaming.md. Whatever takes time is a task of its own: a consumer handles one message
at a time, and a cancel or the end of the socket must not wait behind a stream.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, ClassVar, NamedTuple

import orjson
from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from completions import live, metrics, revocation, sockets
from completions.errors import (
    AuthenticationError,
    InvalidRequestError,
    LLMServiceError,
    PermissionDeniedError,
    RateLimitError,
)
from completions.live import LiveStream, RemoteStream
from completions.live.frames import NOT_FOUND, accepted, error_of, lost, refused
from completions.models import State
from completions.requests import cache_wish
from completions.socket_auth import NOT_ALLOWED, NOT_AUTHENTICATED, Refused, admitted, by_ticket, in_force
from completions.types import CacheWish, Call, Caller
from completions.v1.bodies import checked
from completions.v1.errors import label
from providers.types import JSON, Operation

logger = logging.getLogger(__name__)

LIMITS, FLOODING = 4429, 1008  # close codes
REASON_BYTES = 120  # a close frame holds 123
NAME_CAP = 64  # characters of a caller's id for a stream
NO_LONGER = ((AuthenticationError, NOT_AUTHENTICATED), (PermissionDeniedError, NOT_ALLOWED))
FAULT = "Something went wrong inside the hub. Its log says what."


class Reading(NamedTuple):
    """A stream that is read on this socket, and the task that does it."""

    stream: LiveStream | RemoteStream
    task: asyncio.Task[Any] | None


class CompletionConsumer(AsyncWebsocketConsumer):  # type: ignore[misc] # Channels has no types
    """One socket."""

    channel_layer_alias = "none"  # tokens go straight to the socket

    def __init__(self) -> None:
        super().__init__()
        self.caller: Caller | None = None
        self.pumps: set[asyncio.Task[None]] = set()
        self.starting: dict[str, asyncio.Task[None]] = {}  # by the caller's id, until the call is made
        self.reading: dict[str, Reading] = {}  # by the caller's id
        self.pace = sockets.Pace(settings.LLMHUB_SOCKET_MESSAGES_PER_SECOND)
        self.place: sockets.Place | None = None
        self.watch: sockets.Watch | None = None
        self.closing = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.cut = sockets.cutter(receive)
        try:
            await super().__call__(scope, receive, send)
        finally:  # however it ended
            self.release()

    async def dispatch(self, message: Any) -> None:
        """As Channels does it, without a look at the database before every message."""
        try:
            await getattr(self, get_handler_name(message))(message)
        except OSError:
            pass  # nobody is there to be answered: the next message says so

    # --- the socket

    async def connect(self) -> None:
        try:
            found = await admitted(self.scope)
        except Refused as refusal:
            offered = self.scope.get("subprotocols") or [None]
            await self.accept(offered[0])  # without one, a browser that offers any fails, and never hears why
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
        if caller.api_key_id is not None:  # a person's idle socket costs nothing: it is looked at when used
            revocation.watch(self, caller.api_key_id)

    async def disconnect(self, code: int) -> None:
        self.closing = True

    def release(self) -> None:
        """It has ended: what it read goes on for a while, for who comes back."""
        self.closing = True
        if self.watch is not None:
            self.watch.stop()
        if self.place is not None:
            self.place.leave()
        if self.caller is not None:
            revocation.unwatch(self, revocation.bond_of(self.caller))
        for pump in list(self.pumps):
            pump.cancel()

    async def leave(self, code: int, reason: str) -> None:
        """Close the socket, and say why. A peer that does not answer is cut off."""
        if self.closing:
            return
        self.closing = True
        asyncio.get_running_loop().call_later(sockets.CLOSE_SECONDS, self.cut)
        try:
            await self.close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))
        except (OSError, RuntimeError):
            pass  # it was closed already

    async def fail(self, error: LLMServiceError, state: State = State.CANCELLED) -> None:
        """The key or session behind it is over (see `revocation`). Its calls end by themselves."""
        await self.leave(NOT_AUTHENTICATED, error.message)

    # --- what comes in

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.closing:
            return
        if self.watch is not None:
            self.watch.used()
        if not self.pace.allows():
            await self.leave(FLOODING, "Too many messages a second.")
            return
        frame = _parsed(text_data)
        kind = frame.get("type") if frame is not None else None
        if self.caller is None and kind != "auth":
            await self.leave(NOT_AUTHENTICATED, "The first frame must be auth, with a ticket.")
        elif frame is None:
            await self.refuse(error_of(InvalidRequestError("A message must be a JSON object, as text.")))
        else:
            await self.take(kind, frame)

    async def take(self, kind: Any, frame: dict[str, Any]) -> None:
        handler = self.HANDLERS.get(kind) if isinstance(kind, str) else None
        try:
            if handler is None:
                known = ", ".join(self.HANDLERS)
                raise InvalidRequestError(f"type must be one of {known}.", param="type")
            await handler(self, frame)
        except LLMServiceError as error:
            stream = frame.get("stream") if kind == "resume" else None
            await self.refuse(error_of(error), frame.get("id"), stream if isinstance(stream, str) else None)

    async def on_auth(self, frame: dict[str, Any]) -> None:
        if self.caller is not None:
            return
        try:
            await self.enter(await by_ticket(str(frame.get("ticket"))))
        except Refused as refusal:
            await self.leave(refusal.code, str(refusal))

    async def on_start(self, frame: dict[str, Any]) -> None:
        """{"type": "start", "id", "request"}: admission takes a moment, so it is part of the pump.

        What headers say of the cache elsewhere, `cache` and `cache_ttl_seconds` may say here.
        """
        name = self.new_name(frame)
        request = frame.get("request")
        if not isinstance(request, dict):
            raise InvalidRequestError("request must be a chat completion body.", param="request")
        wish = cache_wish(frame.get("cache") or "", frame.get("cache_ttl_seconds"))
        self.starting[name] = self.pump(self.start(name, request, wish))

    async def on_resume(self, frame: dict[str, Any]) -> None:
        """{"type": "resume", "stream", "last_seq"}: every later frame of it, from here or elsewhere."""
        stream_id, last = frame.get("stream"), frame.get("last_seq", -1)
        if not isinstance(stream_id, str) or type(last) is not int or last < -1:
            raise InvalidRequestError("resume needs stream, and last_seq from -1 on.", param="last_seq")
        self.pump(self.resume(stream_id, last + 1))

    async def on_cancel(self, frame: dict[str, Any]) -> None:
        """{"type": "cancel", "id"}, or by "stream" if it is not read here.

        One that ended meanwhile, or is not known, needs no cancelling.
        """
        name, stream_id = frame.get("id"), frame.get("stream")
        if isinstance(stream_id, str):
            self.spawn(self.cancel(stream_id))
        elif not isinstance(name, str):
            raise InvalidRequestError("cancel needs the id of a stream.", param="id")
        elif name in self.starting:  # nothing was called yet
            self.starting.pop(name).cancel()
            await self.say(orjson.dumps({"type": "cancelled", "id": name, "stream": None, "seq": 0}).decode())
        elif name in self.reading:
            self.spawn(_cancel(self.reading[name].stream))

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
        if name in self.starting or name in self.reading:
            raise InvalidRequestError(_taken(name), param="id")
        return name

    def pump(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` beside the socket. Raises RateLimitError when as many run as may."""
        if len(self.pumps) >= settings.LLMHUB_STREAMS_PER_SOCKET:
            work.close()
            raise RateLimitError(
                f"{settings.LLMHUB_STREAMS_PER_SOCKET} streams run on this socket; that is the most."
            )
        return self.spawn(work)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self.pumps.add(task)
        task.add_done_callback(self.ended)
        if self.caller is not None and self.caller.session is not None:
            revocation.watch(self, revocation.bond_of(self.caller))
        return task

    def ended(self, task: asyncio.Task[None]) -> None:
        self.pumps.discard(task)
        if not self.pumps and self.caller is not None and self.caller.session is not None:
            revocation.unwatch(self, revocation.bond_of(self.caller))
        if self.watch is not None:
            self.watch.used()
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, OSError):
            logger.error("a stream could not be relayed", exc_info=error)

    async def start(self, name: str, request: JSON, wish: CacheWish) -> None:
        try:
            call = await self.call(request)
            stream = await live.start(call._replace(cache=wish), name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must not wait for ever
            self.begun(name)
            await self.refuse(_told(error), name)
            await self.leave_after(error)
        else:
            self.begun(name)
            await self.relay(stream, 0, accepted(name, stream.id))

    async def leave_after(self, error: Exception) -> None:
        """Close the socket if the error says that its caller may not call any more."""
        for kind, code in NO_LONGER:
            if isinstance(error, kind):
                await self.leave(code, str(error))

    def begun(self, name: str) -> None:
        """The call is made, or refused: it is no longer starting."""
        if self.starting.get(name) is asyncio.current_task():
            del self.starting[name]

    async def call(self, request: JSON) -> Call:
        """The call that a request asks for. Raises LLMServiceError."""
        assert self.caller is not None  # noqa: S101 - only known callers get here
        await in_force(self.caller)
        call = checked(self.caller, Operation.CHAT, {**request, "stream": True})
        if call.body.get("n", 1) != 1:
            raise InvalidRequestError("n must be 1 on a websocket: its frames hold one answer.", param="n")
        return call

    async def resume(self, stream_id: str, place: int) -> None:
        try:
            problem = await self.resumed(stream_id, place)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - as in `start`
            await self.refuse(_told(error), resumed=stream_id)
            await self.leave_after(error)
        else:
            if problem is not None:
                await self.refuse(problem, resumed=stream_id)

    async def resumed(self, stream_id: str, place: int) -> JSON | None:
        """Relay it, or say why not."""
        assert self.caller is not None  # noqa: S101 - only known callers get here
        await in_force(self.caller)
        stream = await live.find(stream_id, self.caller)
        if stream is None:
            return NOT_FOUND
        before = self.reading.get(stream.client_id)
        if stream.client_id in self.starting or (before is not None and before.stream.id != stream.id):
            raise InvalidRequestError(_taken(stream.client_id), param="id")
        if isinstance(stream, LiveStream):
            if place < stream.record.first:
                return lost("it is not kept that far back.")
            if place > stream.record.end:
                raise InvalidRequestError("The stream has no such frame.", param="last_seq")
        if before is not None and before.task is not None:
            before.task.cancel()  # from now on it is read from the new place
        await self.relay(stream, place)
        return None

    async def cancel(self, stream_id: str) -> None:
        assert self.caller is not None  # noqa: S101 - only known callers get here
        if (stream := await live.find(stream_id, self.caller)) is not None:
            await _cancel(stream)

    async def relay(self, stream: LiveStream | RemoteStream, place: int, first: str = "") -> None:
        """Frames of a stream as they come, after the `first`."""
        reading = self.reading[stream.client_id] = Reading(stream, asyncio.current_task())
        try:
            if isinstance(stream, LiveStream):
                await self.relay_own(stream, place, first)
            else:
                async for frames in stream.frames(place):
                    await self.send_all(frames)
        finally:
            if self.reading.get(stream.client_id) is reading:
                del self.reading[stream.client_id]

    async def relay_own(self, stream: LiveStream, place: int, first: str) -> None:
        reader = stream.attach(place)
        try:
            if first:
                await self.say(first)
            while frames := await reader.read():
                await self.send_all(frames)
        finally:
            stream.detach(reader, slow=self.watch is not None and self.watch.is_slow)

    # --- what goes out

    async def send_all(self, frames: list[str]) -> None:
        """Raises OSError where nobody is there any more."""
        watch = self.watch
        assert watch is not None  # noqa: S101 - from the socket's beginning on
        watch.sending()
        try:
            for frame in frames:
                await self.base_send({"type": "websocket.send", "text": frame})
                watch.taken += 1
        except RuntimeError as error:  # the server's word for a socket that it has closed
            raise sockets.Gone from error
        finally:
            watch.stopped()

    async def say(self, text: str) -> None:
        await self.send_all([text])

    async def refuse(self, problem: JSON, name: Any = "", resumed: str | None = None) -> None:
        """Tell an error that is no stream's."""
        metrics.ERRORS.labels("ws", label(problem["error"]["code"])).inc()
        await self.say(refused(problem, name if isinstance(name, str) else "", resumed))


async def _cancel(stream: LiveStream | RemoteStream) -> None:
    if isinstance(stream, LiveStream):
        stream.cancel()
    else:
        await stream.cancel()


def _taken(name: str) -> str:
    return f"A stream {name!r} runs on this socket already."


def _told(error: Exception) -> JSON:
    if isinstance(error, LLMServiceError):
        return error_of(error)
    logger.error("unexpected error on a websocket", exc_info=error)
    return error_of(LLMServiceError(FAULT))


def _parsed(text: str | None) -> JSON | None:
    try:
        frame = orjson.loads(text or "")
    except orjson.JSONDecodeError:
        return None
    return frame if isinstance(frame, dict) else None
