"""Work that must end once it was begun, and work that nobody waits for."""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

_background: set["asyncio.Task[Any]"] = set()


def background(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """A task of its own, which nobody needs to keep or look at. It knows nothing of the request here."""
    task = asyncio.get_running_loop().create_task(work, context=Context())
    _background.add(task)
    task.add_done_callback(_over)
    return task


def _over(task: "asyncio.Task[Any]") -> None:
    _background.discard(task)
    if not task.cancelled():
        task.exception()  # looked at: asyncio need not complain


async def unbroken(work: Awaitable[T]) -> tuple[T, asyncio.CancelledError | None]:
    """The result of `work`, and the cancellation that came meanwhile: the caller raises it when it is ready
    to.

    Raises what `work` raises.
    """
    waiting = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError as error:
            cancelled = error
    return waiting.result(), cancelled
