"""Running calls whose key is revoked, expires, or whose project is disabled: they end within seconds.

The pipeline says which calls run (`watch`, `unwatch`). While there are any, one task per event loop compares
their keys with what this process knows of them, once a second.
"""

import asyncio
import logging
from contextvars import Context
from typing import Protocol

from django.utils import timezone

from completions import accounts, keys
from completions.errors import AuthenticationError, LLMServiceError
from providers.loops import PerLoop

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class Running(Protocol):
    """A call on its way. `fail` ends it: its row is settled, and its reader gets the error."""

    async def fail(self, error: LLMServiceError) -> None: ...


class _Watcher:
    """The running calls of one event loop, by key."""

    def __init__(self) -> None:
        self.runs: dict[int, set[Running]] = {}
        self.task: asyncio.Task[None] | None = None
        self.ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        # An empty context: the one here is a call's, whose thread may be gone before the next look.
        self.task = asyncio.get_running_loop().create_task(
            self.look(), name="revoked keys", context=Context()
        )

    async def look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.runs = {key_id: runs for key_id, runs in self.runs.items() if runs}
            if not self.runs:
                return
            for key_id in list(self.runs):
                await self.judge(key_id)

    async def judge(self, key_id: int) -> None:
        try:
            key = await accounts.akey(key_id)
            project = None if key is None else await accounts.aproject(key.project_id)
        except Exception as error:  # noqa: BLE001 - the database is away; the call goes on until it is back
            logger.warning("Whether key %s is still in force could not be seen: %s", key_id, error)
            return
        if (refused := keys.refusal(key, project, timezone.now())) is not None:
            for run in self.runs.pop(key_id, set()):
                self.end(run, refused)

    def end(self, run: Running, refused: AuthenticationError) -> None:
        """In a task of its own: a settlement that waits must not keep the other calls running."""
        task = asyncio.get_running_loop().create_task(run.fail(refused))
        self.ending.add(task)
        task.add_done_callback(self.ending.discard)


_watchers = PerLoop(_Watcher)


def watch(run: Running, api_key_id: int | None) -> None:
    """End `run` with an AuthenticationError when its key is no longer in force. Call `unwatch` at its end."""
    if api_key_id is not None:
        watcher = _watchers.get()
        watcher.runs.setdefault(api_key_id, set()).add(run)
        if watcher.task is None or watcher.task.done():
            watcher.start()


def unwatch(run: Running, api_key_id: int | None) -> None:
    """The call has ended. Doing so twice, or for one that was never watched, changes nothing."""
    if api_key_id is not None:
        _watchers.get().runs.get(api_key_id, set()).discard(run)
