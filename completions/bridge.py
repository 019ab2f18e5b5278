"""Running the async core from synchronous code, with one event loop per process for everything that is kept
open."""

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from asgiref.sync import SyncToAsync, async_to_sync
from django.db import close_old_connections

from providers import drivers

T = TypeVar("T")

CLOSE_SECONDS = 2.0  # for upstream connections at the end of the process


class _Background:
    """A loop in a thread of its own, for processes that have none: commands, WSGI servers, task workers."""

    lock = threading.Lock()
    loop: asyncio.AbstractEventLoop | None = None


def run_sync(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """The result of `await function(*args)`.

    Inside a request that an ASGI server serves, it runs on the server's loop (and is cancelled with the
    request); anywhere else on a loop that lives as long as the process. Raises RuntimeError inside a running
    loop: await there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(f"{function.__name__} was called from a coroutine; await its async twin instead.")
    serving = getattr(SyncToAsync.threadlocal, "main_event_loop", None)
    if serving is not None and serving.is_running():
        close_old_connections()  # this thread only waits from here on: others may need its connection
        return async_to_sync(function)(*args)
    return asyncio.run_coroutine_threadsafe(function(*args), _background_loop()).result()


def _background_loop() -> asyncio.AbstractEventLoop:
    with _Background.lock:
        if _Background.loop is None or not _Background.loop.is_running():
            loop = asyncio.new_event_loop()
            running = threading.Event()
            loop.call_soon(running.set)
            threading.Thread(target=loop.run_forever, name="llmhub-loop", daemon=True).start()
            running.wait()
            _Background.loop = loop
            atexit.register(_close_upstream_connections, loop)
        return _Background.loop


def _close_upstream_connections(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(drivers.aclose(), loop).result(CLOSE_SECONDS)
