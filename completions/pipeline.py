"""The pipeline: the one way of every call, whatever surface it comes through.

admission (model, limits, budgets) -> row and holds (ONE commit) -> dispatch (candidates in order) -> meter
-> settlement (ONE commit) -> last event
"""

import time
from collections.abc import Callable

from completions import ledger, running
from completions.admission import admission
from completions.answering import Answering, Outlet
from completions.run import Run
from completions.types import Call


async def start(call: Call, outlet: Callable[[Run], Outlet] | None = None) -> Answering:
    """The call on its way. Raises LLMServiceError when it may not be made.

    The chunks of a call to the upstream go to the `outlet` made for it, else to its own reader.
    """
    running.admit()
    began = time.monotonic()
    return Run(call, await admission(call, ledger.new_id()), began, outlet)
