"""What starts and stops with a server process: a list of steps for each."""

import gc
import logging
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


async def _start_worker() -> None:
    """Embedded, this one process does the periodic work too; elsewhere `manage.py worker` does."""
    from django.conf import settings

    from completions import worker

    if settings.LLMHUB_EMBEDDED:
        worker.start()


async def _stop_worker() -> None:
    from completions import worker

    await sync_to_async(worker.stop)()


START: tuple[Step, ...] = (_refuse_unsafe_settings, _start_ledger, _start_worker, _freeze_heap)
STOP: tuple[Step, ...] = (
    _stop_worker,
    _close_upstream_connections,
    _close_limiter,
    _write_key_uses,
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
