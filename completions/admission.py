"""Whether a call may be made, and by which candidates.

Everything that is decided before its row is written.
"""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from completions import accounts, budgets, keys, ledger
from completions.accounts import KeyFacts, ProjectFacts
from completions.errors import (
    AuthenticationError,
    ModelNotFoundError,
    ModelNotPricedError,
    TokenLimitError,
    UnavailableError,
)
from completions.limits import Grant, Limits, limiter
from completions.prompts import Prompt
from completions.types import Call
from providers import pricing
from providers.registry import asnapshot
from providers.types import JSON, Target
from providers.wire_json import output_bound


class Admission(NamedTuple):
    """A call that may be made: by which targets, under which row and grant."""

    targets: Sequence[Target]
    prompt: Prompt
    opening: ledger.Opening
    grant: Grant
    content_days: int  # 0: its content is not kept
    project: ProjectFacts
    key: KeyFacts | None


async def admission(call: Call, call_id: uuid.UUID) -> Admission:
    """Decide on a call.

    Raises LLMServiceError when it may not be made; then nothing was charged to its key.
    """
    try:
        project = await accounts.aproject(call.caller.project_id)
        key = await accounts.akey(call.caller.api_key_id) if call.caller.api_key_id is not None else None
        prompt = Prompt(call.operation, call.body)
        targets = await _candidates(call, prompt)
    except (DatabaseError, InterfaceError) as error:
        raise UnavailableError(
            "The hub's database cannot be read now. Try again shortly.", retry_after=5
        ) from error
    if project is None or (call.caller.api_key_id is not None and key is None):
        raise AuthenticationError("The project or key of this call no longer exists.")
    claims = budgets.claims(project, call.caller, call.end_user, timezone.now())
    if any(claim.budget.hard for claim in claims):
        targets = _priced(targets, call)
    limits = key.limits if key is not None else Limits()
    target = targets[0]
    opening = ledger.Opening(
        id=call_id,
        caller=call.caller,
        requested_model=call.model or "",
        stream=call.stream,
        end_user=call.end_user,
        claims=claims,
        hold_nano=_hold(targets, prompt, prompt.size, call) if claims else 0,
        prompt_tokens=prompt.rough,
        provider_slug=target.endpoint.provider,
        model=target.upstream_model,
        prices=pricing.dump(target.price) if target.price else "",
        price_source=target.price.source if target.price else "",
        operation=call.operation.value,
    )
    asked = prompt.rough + _asked_output(call.body)
    grant = await limiter().acquire(f"key:{call.caller.api_key_id}", limits, asked)
    days = project.content_days if key is None or key.log_content else 0
    return Admission(targets, prompt, opening, grant, days, project, key)


async def tightened(admitted: Admission, call: Call) -> ledger.Opening | None:
    """The opening with a hold by the prompt's tokens, counted; None where that is no less.

    A token is at least one byte: a prompt's bytes bound what it can cost, for any model and without counting.
    Only where a budget does not cover that, the tokens are counted: it takes as long as all else of a call.
    """
    targets, prompt = admitted.targets, admitted.prompt
    most = await prompt.at_most([target.upstream_model for target in targets])
    hold = _hold(targets, prompt, most, call)
    if hold >= admitted.opening.hold_nano:
        return None
    count = (await prompt.acount(targets[0].upstream_model)).count
    return admitted.opening._replace(hold_nano=hold, prompt_tokens=count)


def _hold(targets: Sequence[Target], prompt: Prompt, tokens: int, call: Call) -> int:
    """Nano-dollars, where the prompt has at most `tokens`, but for what it only points at."""
    return budgets.worst_case(targets, tokens, call, open_ended=prompt.open_ended)


async def _candidates(call: Call, prompt: Prompt) -> Sequence[Target]:
    """What the call's model names for this caller, as far as the prompt fits."""
    found = (await asnapshot()).resolve(call.model, call.provider)
    permitted = await keys.apermitted(found, call.caller.api_key_id)
    if not permitted:
        raise ModelNotFoundError(_no_model(call, hidden=bool(found)), param="model")
    return await _that_fit(permitted, prompt)


def _no_model(call: Call, *, hidden: bool) -> str:
    if call.model is not None:
        return f"The model {call.model!r} does not exist or you do not have access to it."
    if hidden:
        return "You do not have access to the default model. Name the model you want to call."
    return "No enabled provider has a default model. Staff add providers in the admin."


async def _that_fit(targets: Sequence[Target], prompt: Prompt) -> Sequence[Target]:
    """The candidates whose context window holds the prompt. Raises TokenLimitError when none does.

    A token is at least one byte, so a short prompt needs no counting; an estimated count refuses nobody.
    """
    fitting = []
    for target in targets:
        window = target.context_window
        if window is not None and prompt.size > window:
            count = await prompt.acount(target.upstream_model)
            if count.exact and count.count > window:
                continue
        fitting.append(target)
    if not fitting:
        raise TokenLimitError(
            f"The prompt has {count.count} tokens; the context window of {target.public_model} is "
            f"{window}. Shorten the messages.",
            param="messages",
            prompt_tokens=count.count,
            context_window=window,
        )
    return fitting


def _priced(targets: Sequence[Target], call: Call) -> Sequence[Target]:
    """A hard budget pays only for what has a price."""
    priced = [target for target in targets if target.price is not None]
    if not priced:
        raise ModelNotPricedError(
            f"No price is known for {call.model or targets[0].public_model!r}, so a hard budget cannot pay "
            "for it. Staff can add one in the admin under Prices.",
            param="model",
        )
    return priced


def _asked_output(body: JSON) -> int:
    """Tokens of output that the call asks for: what a limit on tokens is charged before they come."""
    asked = output_bound(body)
    return asked if isinstance(asked, int) else 0
