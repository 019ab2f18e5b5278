"""Looking anew in the background, so that no call waits for what it could have known."""

import asyncio
import logging
import threading
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError

logger = logging.getLogger(__name__)


class Refresh:
    """Runs `look` in a thread, once at a time, when it is asked for on an event loop."""

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self._lock = threading.Lock()

    def soon(self) -> None:
        """Look shortly, unless that is under way."""
        if self._lock.acquire(blocking=False):
            asyncio.get_running_loop().run_in_executor(None, self._run)

    def _run(self) -> None:
        try:
            self._look()
        except (DatabaseError, InterfaceError) as error:
            logger.debug("what is known could not be compared with the database: %s", error)
        finally:
            self._lock.release()
