"""Asking anew for an answer that is cached. Staff do so; the answer's project pays, as for any call."""

from typing import Any

import orjson

from completions import pipeline
from completions.bridge import run_sync
from completions.cache import index
from completions.cache.keeping import NOT_KEPT
from completions.errors import InvalidRequestError, LLMServiceError, OtherKeyError, PermissionDeniedError
from completions.models import ApiKey, CachedResponse, CacheScope, Completion
from completions.types import CacheControl, CacheWish, Call, Caller, LLMResponse
from providers.types import Operation

LONGEST_SECONDS = 60.0  # for the upstream: somebody looks at a page meanwhile
MEAN_JITTER = 0.95  # of the time it was stored for; so that it is not stored for less each time
OTHER_KEY = (
    "The same request would have another key now, or not be cached at all: its model, the defaults of its "
    "provider, or who shares its answers, changed since. Nothing was asked."
)


def renew(row: CachedResponse) -> LLMResponse:
    """Ask the upstream again and keep its answer in place of the one before, for as long as that one.

    Raises LLMServiceError where that cannot be; then the answer before stays.
    """
    index.flush()
    row.refresh_from_db()
    before, key_id = row.completion_id, row.api_key_id
    try:
        response = run_sync(_answer, _call_of(row), row.key)
    except OtherKeyError as error:
        raise OtherKeyError(OTHER_KEY) from error
    index.flush()
    row.refresh_from_db()
    if row.completion_id == before:
        raise LLMServiceError(_not_kept(row, response))
    CachedResponse.objects.filter(pk=row.pk).update(api_key_id=key_id)  # whose request it is, as before
    return response


async def _answer(call: Call, key: str) -> LLMResponse:
    return await (await pipeline.start(call, key=key)).answer()


def _call_of(row: CachedResponse) -> Call:
    try:
        body: Any = orjson.loads(row.request)
    except orjson.JSONDecodeError:
        raise InvalidRequestError(NOT_KEPT) from None
    project = row.project
    if not project.enabled:
        raise PermissionDeniedError(f"The project {project.slug} is disabled: it pays for no calls.")
    lasted = (row.expires_at - row.created_at).total_seconds() / MEAN_JITTER
    return Call(
        caller=_caller_of(row),
        body=body,
        model=row.model,
        provider=row.provider_slug,
        timeout_seconds=LONGEST_SECONDS,
        end_user=row.end_user,
        operation=Operation(row.operation),
        cache=CacheWish(CacheControl.REFRESH, max(int(lasted), 1), by_staff=True),
    )


def _caller_of(row: CachedResponse) -> Caller:
    """The project; its key or member as well, where each has answers of its own."""
    project = row.project
    if project.cache_scope != CacheScope.KEY:
        return Caller(project.pk, project.slug, surface="admin")
    if row.api_key_id is not None and not ApiKey.objects.filter(pk=row.api_key_id, revoked_at=None).exists():
        raise PermissionDeniedError("The key that this answer is for is revoked.")
    made = Completion.objects.filter(pk=row.completion_id).first() if row.completion_id else None
    user_id = made.user_id if made is not None else None
    return Caller(project.pk, project.slug, row.api_key_id, user_id, surface="admin")


def _not_kept(row: CachedResponse, response: LLMResponse) -> str:
    answered = response.metadata
    why = f"it ended with {answered.finish_reason!r}" if answered.finish_reason else "it is not whole"
    if answered.provider != row.provider_slug:
        why = f"another provider, {answered.provider}, gave it"
    return f"The upstream answered, but {why}, so the answer before stays. The call is in the ledger."
