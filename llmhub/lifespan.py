"""What starts and stops with a server process: a list of steps for each."""

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured

logger = logging.getLogger(__name__)

GC_THRESHOLD = 20_000  # objects made since the last collection; calls leave few cycles behind

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Step = Callable[[], Awaitable[None]]


async def _refuse_unsafe_settings() -> None:
    """The same refusal whatever server runs this application: `manage.py` is not the only one."""
    from completions.checks import settings_are_sound

    if errors := [message for message in settings_are_sound() if message.is_serious()]:
        raise ImproperlyConfigured(" ".join(f"({error.id}) {error.msg} {error.hint}" for error in errors))


async def _freeze_heap() -> None:
    """What is loaded by now stays for good: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])


async def _close_upstream_connections() -> None:
    from providers import drivers

    await drivers.aclose()


async def _close_limiter() -> None:
    from completions import limits

    await limits.aclose()


async def _load_cache() -> None:
    """What was cached before this process began; calls need not wait for it."""
    from completions.cache import index
    from completions.tasks import background

    background(sync_to_async(index.load, thread_sensitive=False)())


async def _write_cache_rows() -> None:
    from completions.cache import index, stores

    await sync_to_async(index.flush)()
    await stores.aclose()


async def _write_key_uses() -> None:
    from completions import keys

    await sync_to_async(keys.flush_uses)()


async def _finish_ledger() -> None:
    """The last rows are on disk before the process ends."""
    from completions import ledger

    await sync_to_async(ledger.close)()


async def _start_ledger() -> None:
    """Before the first call: what a process that died left running is settled at once."""
    from completions import ledger

    ledger.start()


async def _bound_calls() -> None:
    from django.conf import settings

    from completions import running

    running.resume()
    running.limit(settings.LLMHUB_MOST_CALLS)


async def _load_encodings() -> None:
    """Else the first stream that is cut off waits for them. (Hubs of tests are not in the main thread.)"""
    from completions.tasks import background

    if threading.current_thread() is threading.main_thread():
        background(sync_to_async(_encodings, thread_sensitive=False)())


def _encodings() -> None:
    from completions import tokens
    from providers import database, registry
    from providers.types import ProviderType

    with database.glance():
        targets = registry.snapshot().targets
    # The demo provider tells what it used: a hub that has no other stays small.
    tokens.load(one.upstream_model for one in targets if one.endpoint.type is not ProviderType.DEMO)


async def _listen_to_other_processes() -> None:
    from completions import control, live, underway

    live.listen()
    underway.listen()
    control.listen()


async def _stop_listening() -> None:
    from completions import control
    from completions.live import shared

    await control.stop()
    await shared.aclose()


async def _drain_when_told() -> None:
    """On SIGTERM and SIGINT calls finish first; only then the server is told, which would cut them off.

    A second signal goes to the server at once. Elsewhere than in the main thread (tests) nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        server = signal.getsignal(number)
        if callable(server):
            signal.signal(number, _Drain(asyncio.get_running_loop(), server))


class _Drain:
    """A signal handler before the server's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Callable[[int, Any], Any]) -> None:
        self.loop, self.server = loop, server
        self.draining: asyncio.Task[None] | None = None

    def __call__(self, number: int, frame: Any) -> None:
        if self.draining is not None or self.loop.is_closed():
            self.server(number, frame)
        else:
            self.loop.call_soon_threadsafe(self._begin, number)

    def _begin(self, number: int) -> None:
        if self.draining is None:
            self.draining = self.loop.create_task(self._drain(number))

    async def _drain(self, number: int) -> None:
        from django.conf import settings

        from completions import running

        try:
            await running.drain(settings.LLMHUB_DRAIN_SECONDS)
        finally:
            self.server(number, None)


async def _start_worker() -> None:
    """Embedded, this one process does the periodic work too; elsewhere `manage.py worker` does."""
    from django.conf import settings

    from completions import worker

    if settings.LLMHUB_EMBEDDED:
        worker.start()


async def _stop_worker() -> None:
    from completions import worker

    await sync_to_async(worker.stop)()


START: tuple[Step, ...] = (
    _refuse_unsafe_settings,
    _bound_calls,
    _start_ledger,
    _start_worker,
    _load_cache,
    _load_encodings,
    _listen_to_other_processes,
    _drain_when_told,
    _freeze_heap,
)
STOP: tuple[Step, ...] = (
    _stop_worker,
    _stop_listening,
    _close_upstream_connections,
    _close_limiter,
    _write_key_uses,
    _write_cache_rows,
    _finish_ledger,
)


async def lifespan(scope: Message, receive: Receive, send: Send) -> None:
    """The ASGI lifespan protocol: every START step in order; at the end every STOP step, come what may."""
    await receive()  # lifespan.startup
    try:
        for step in START:
            await step()
    except (
        Exception
    ) as error:  # said, not raised: servers take that for "knows no lifespan" and serve all the same
        if not isinstance(error, ImproperlyConfigured):  # whose message says it all
            logger.exception("The hub does not start")
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    for step in STOP:
        await _stop(step)
    await send({"type": "lifespan.shutdown.complete"})


async def _stop(step: Step) -> None:
    try:
        await step()
    except Exception:  # the steps after this one must run too
        logger.exception("Shutdown step %s failed", step.__name__)
