"""The pipeline: the one way of every call, whatever surface it comes through.

admission (model, limits, budgets) -> cache, or an equal call under way -> row and holds (ONE commit)
-> dispatch (candidates in order) -> meter -> settlement (ONE commit) -> last event
"""

import time

from completions import cache, ledger, running
from completions.admission import admission
from completions.answering import Answering
from completions.errors import OtherKeyError
from completions.limits import limiter
from completions.pumped import OutletOf
from completions.run import Run
from completions.types import Call


async def start(call: Call, outlet: OutletOf | None = None, *, key: str | None = None) -> Answering:
    """The call on its way. Raises LLMServiceError when it may not be made.

    The chunks of a streamed call go to the `outlet` made for it, else to its own reader. With `key`, the call
    is made only if its answer is kept under it.
    """
    running.admit()
    began = time.monotonic()
    admitted = await admission(call, ledger.new_id())
    try:
        plan = cache.plan_of(call, admitted)
        if key is not None and (plan is None or plan.key != key):
            raise OtherKeyError("Its answer would not be cached under this key.")
        if plan is None:
            return Run(call, admitted, began, outlet)
    except BaseException:
        limiter().give_back(admitted.grant, 0)
        raise
    return await cache.start(call, admitted, began, plan, outlet)
