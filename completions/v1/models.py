"""What a key may call, as OpenAI lists models."""

from completions import keys
from completions.errors import ModelNotFoundError
from completions.types import Caller
from providers.registry import asnapshot
from providers.types import JSON, Target


async def listed(caller: Caller) -> JSON:
    """Every model of the caller, each public name once."""
    first: dict[str, Target] = {}
    for target in await keys.apermitted((await asnapshot()).targets, caller.api_key_id):
        first.setdefault(target.public_model, target)
    return {"object": "list", "data": [_model(target) for target in first.values()]}


async def named(caller: Caller, name: str) -> JSON:
    """One model, by its public name or as provider/name. Raises ModelNotFoundError."""
    current = await asnapshot()
    found = await keys.apermitted(current.resolve(name), caller.api_key_id)
    if not found:
        raise ModelNotFoundError(
            f"The model {name!r} does not exist or you do not have access to it.", param="model"
        )
    return {**_model(found[0]), "id": name}


def _model(target: Target) -> JSON:
    told: JSON = {
        "id": target.public_model,
        "object": "model",
        "created": target.created,
        "owned_by": target.endpoint.provider,
    }
    if target.context_window is not None:
        told["context_window"] = target.context_window
    if target.max_output is not None:
        told["max_output_tokens"] = target.max_output
    return told
