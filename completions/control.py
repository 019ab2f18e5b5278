"""What processes of the hub tell each other: to end a call, that a stream is read elsewhere.

Messages are small and rare, and travel through the channel layer; tokens never do. A message that is lost
does no harm: who sent it sends it again, or a person does.
"""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any, ClassVar

from channels.layers import get_channel_layer

logger = logging.getLogger(__name__)

GROUP = "llmhub.control"
PAUSE_SECONDS = 2.0  # before listening again where Redis is away
TELL_SECONDS = 2.0  # that Redis may take

Message = dict[str, Any]
Handler = Callable[[Message], None]


class _Process:
    handlers: ClassVar[dict[str, Handler]] = {}
    task: asyncio.Task[None] | None = None


def handle(kind: str, handler: Handler) -> None:
    """Call `handler`, on the server's loop, for every message of this kind."""
    _Process.handlers[kind] = handler


async def tell(message: Message) -> None:
    """Tell every process, this one too."""
    layer = get_channel_layer()
    try:
        async with asyncio.timeout(TELL_SECONDS):
            await layer.group_send(GROUP, message)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with Redis, see the module
        logger.warning("other processes could not be told %s: %s", message["type"], error)


def listen() -> None:
    """Listen on the running loop from now on, until `stop`."""
    _Process.task = asyncio.get_running_loop().create_task(_listen(), context=Context())


async def stop() -> None:
    """Listen no longer."""
    task, _Process.task = _Process.task, None
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


async def _listen() -> None:
    while True:
        try:
            await _receive()
        except Exception as error:  # noqa: BLE001 - it must listen again, whatever happened
            logger.warning("other processes cannot be heard: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)


async def _receive() -> None:
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(GROUP, channel)
    try:
        while True:
            message = await layer.receive(channel)
            if (handler := _Process.handlers.get(message["type"])) is not None:
                handler(message)
    finally:
        await layer.group_discard(GROUP, channel)
