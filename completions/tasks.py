"""Waiting that a cancellation cannot break: for work that must end once it was begun."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


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
