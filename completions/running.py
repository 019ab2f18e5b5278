"""The calls that run in this process: how many, which, and that there are no new ones once it is to stop."""

import asyncio
from collections.abc import Collection
from typing import ClassVar, Protocol

from completions import metrics
from completions.errors import LLMServiceError, UnavailableError
from completions.models import State
from providers.loops import PerLoop

SETTLE_SECONDS = 10.0  # that ended calls may take to be settled when the process stops
OVERLOADED_SECONDS = 1.0  # until another try is sensible: some call will have ended


class Running(Protocol):
    """A call on its way. `fail` ends it: its row is settled, and its reader gets the error."""

    async def fail(self, error: LLMServiceError, state: State = ...) -> None: ...


class _Process:
    draining = False
    idle: asyncio.Event | None = None  # set when the last call has ended, while that is waited for
    most: ClassVar[int] = 10_000  # calls at a time; LLMHUB_MOST_CALLS


_calls: PerLoop[set[Running]] = PerLoop(set)


def limit(most: int) -> None:
    """Run at most so many calls at a time from now on."""
    _Process.most = most


def admit() -> None:
    """Whether there is room for one more call. Raises UnavailableError."""
    if _Process.draining:
        raise UnavailableError("The hub is shutting down.", reason="shutting_down", retry_after=1)
    if len(_calls.get()) >= _Process.most:
        raise UnavailableError(
            "The hub has as many calls as it can run. Try again shortly.",
            reason="overloaded",
            retry_after=OVERLOADED_SECONDS,
        )


def begin(run: Running) -> None:
    _calls.get().add(run)
    metrics.IN_FLIGHT.inc()


def end(run: Running) -> None:
    """It has ended. Doing so twice changes nothing."""
    mine = _calls.get()
    if run in mine:
        mine.remove(run)
        metrics.IN_FLIGHT.dec()
        if not mine and _Process.idle is not None:
            _Process.idle.set()


def calls() -> Collection[Running]:
    """Those of the running loop, as of now."""
    return tuple(_calls.get())


def everywhere() -> Collection[tuple[asyncio.AbstractEventLoop, Running]]:
    """Those of every loop of this process, as of now; from any thread."""
    return [(loop, run) for loop, runs in _calls.everywhere() for run in tuple(runs)]


def is_draining() -> bool:
    return _Process.draining


def resume() -> None:
    """Take calls again: for tests, in which a process lives on."""
    _Process.draining = False


async def drain(seconds: float) -> None:
    """Take no new calls; let those that run finish for `seconds`, then end them, each with a settled row."""
    _Process.draining = True
    await _until_none_runs(seconds)
    stopping = UnavailableError(
        "The hub shut down before the answer was complete.", reason="shutting_down", retry_after=1
    )
    ending = [run.fail(stopping, State.SHUTDOWN) for run in calls()]
    if ending:
        await asyncio.wait([asyncio.ensure_future(one) for one in ending], timeout=SETTLE_SECONDS)
        await asyncio.sleep(0.1)  # their readers send the last frame


async def _until_none_runs(seconds: float) -> None:
    if not _calls.get():
        return
    _Process.idle = asyncio.Event()
    try:
        async with asyncio.timeout(seconds):
            await _Process.idle.wait()
    except TimeoutError:
        pass  # they had their time
    finally:
        _Process.idle = None
