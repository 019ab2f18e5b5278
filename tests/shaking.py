"""A plugin of pytest that holds up the whole process now and then, as a busy machine does: `make shake`.

What passes only where nothing is ever late fails under it: tests, and the hub, which runs in their process.
"""

import ctypes
import os
import threading
import time
from random import Random

import pytest

STALLS_SECONDS = (0.06, 0.15, 0.3)
PAUSES_SECONDS = (0.3, 1.2)  # between two, at least and at most


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER") or not config.getoption("numprocesses", None):
        threading.Thread(target=_shake, daemon=True).start()


def _shake() -> None:
    chance = Random()  # noqa: S311 - its own: hypothesis minds whoever else uses the module's
    library = ctypes.PyDLL(None)  # unlike CDLL, it keeps the GIL while it calls
    while True:
        time.sleep(chance.uniform(*PAUSES_SECONDS))
        library.usleep(int(chance.choice(STALLS_SECONDS) * 1_000_000))
