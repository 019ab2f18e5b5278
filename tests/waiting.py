"""Waiting for what comes about elsewhere: in another thread, process or program."""

import asyncio
import time
from collections.abc import Callable

SECONDS = 10.0  # no test waits as long on a machine that is not starved
TICK_SECONDS = 0.005


def eventually(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    """Whether the condition holds now or within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK_SECONDS)
    return True


async def aeventually(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    """The same in an event loop, which runs meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(TICK_SECONDS)
    return True
