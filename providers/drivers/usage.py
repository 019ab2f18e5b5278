"""What an upstream says it used, in the shapes that vendors use, or the finding that it makes no sense."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from providers.types import Usage

MAX_TOKENS = 1_000_000_000  # of one call: whatever is above is not a count


class ParsedUsage(NamedTuple):
    """`usage` None: nothing was said, or (`anomaly`) something that cannot be true."""

    usage: Usage | None
    anomaly: bool = False


class _Nonsense(Exception):
    """A figure that is no count of tokens."""


NOTHING = ParsedUsage(None)
NONSENSE = ParsedUsage(None, anomaly=True)


def parse_usage(raw: Any) -> ParsedUsage:
    """`raw` is the `usage` object of an answer (or None).

    Read: OpenAI's names (https://platform.openai.com/docs/api-reference/chat/object), DeepSeek's
    prompt_cache_hit_tokens, Anthropic's input_tokens with its cache classes beside it, and Gemini's
    usageMetadata. A part that is greater than its whole makes all of it nonsense.
    """
    if raw is None:
        return NOTHING
    if not isinstance(raw, Mapping):
        return NONSENSE
    try:
        usage = _usage(raw)
    except _Nonsense:
        return NONSENSE
    if usage is None:
        return NOTHING
    in_prompt = max(usage.cached + usage.cache_write, usage.audio_prompt)
    in_completion = max(usage.reasoning, usage.audio_completion)
    fits = in_prompt <= usage.prompt and in_completion <= usage.completion
    return ParsedUsage(usage) if fits else NONSENSE


def usage_of(body: Mapping[str, Any]) -> ParsedUsage:
    """The usage that an answer or chunk states, wherever its vendor puts it."""
    raw = body.get("usage")
    if raw is None and isinstance(extra := body.get("x_groq"), Mapping):
        raw = extra.get("usage")
    return parse_usage(body.get("usageMetadata") if raw is None else raw)


def _usage(raw: Mapping[str, Any]) -> Usage | None:
    if "input_tokens" in raw and "prompt_tokens" not in raw:
        return _anthropic(raw)
    prompt = _first(raw, "prompt_tokens", "promptTokenCount")
    completion = _first(raw, "completion_tokens", "candidatesTokenCount")
    if prompt is None and completion is None:
        return None
    if prompt is None:  # a count of the output alone is no statement of what was used
        raise _Nonsense
    in_prompt = _details(raw, "prompt_tokens_details")
    in_completion = _details(raw, "completion_tokens_details")
    cached = _first(in_prompt, "cached_tokens")
    if cached is None:
        cached = _first(raw, "prompt_cache_hit_tokens", "cache_read_input_tokens", "cachedContentTokenCount")
    written = _first(in_prompt, "cache_write_tokens", "cache_creation_tokens")
    reasoning = _first(in_completion, "reasoning_tokens")
    if reasoning is None:
        reasoning = _count(raw, "thoughtsTokenCount")
    beside = _thought_beside(raw, prompt + (completion or 0), reasoning)
    return Usage(
        prompt=prompt,
        completion=(completion or 0) + beside,
        cached=cached or 0,
        cache_write=written or _count(raw, "cache_creation_input_tokens") or 0,
        reasoning=reasoning or beside,
        audio_prompt=_count(in_prompt, "audio_tokens") or 0,
        audio_completion=_count(in_completion, "audio_tokens") or 0,
    )


def _thought_beside(raw: Mapping[str, Any], stated: int, reasoning: int | None) -> int:
    """Reasoning tokens that are in the total but not in the output: so count xAI and Gemini.

    https://docs.x.ai/docs/guides/reasoning; https://ai.google.dev/gemini-api/docs/thinking
    """
    total = _first(raw, "total_tokens", "totalTokenCount")
    beside = (total or 0) - stated
    return beside if beside > 0 and reasoning in (None, beside) else 0


def _anthropic(raw: Mapping[str, Any]) -> Usage:
    """Anthropic counts tokens read from and written to its cache beside input_tokens: the whole is their sum.

    https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching; the same names with
    `input_tokens_details` are OpenAI's of /v1/responses, where the parts are inside.
    """
    whole = _count(raw, "input_tokens") or 0
    cached = _count(raw, "cache_read_input_tokens") or 0
    written = _count(raw, "cache_creation_input_tokens") or 0
    prompt = whole + cached + written
    if "input_tokens_details" in raw:
        prompt, cached = whole, _count(_details(raw, "input_tokens_details"), "cached_tokens") or 0
    reasoning = _count(_details(raw, "output_tokens_details"), "reasoning_tokens") or 0
    completion = _count(raw, "output_tokens") or 0
    return Usage(prompt, completion, cached=cached, cache_write=written, reasoning=reasoning)


def _details(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = raw.get(name)
    if details is None:
        return {}
    if not isinstance(details, Mapping):
        raise _Nonsense
    return details


def _first(raw: Mapping[str, Any], *names: str) -> int | None:
    return next((count for name in names if (count := _count(raw, name)) is not None), None)


def _count(raw: Mapping[str, Any], name: str) -> int | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TOKENS:
        raise _Nonsense
    if value != int(value):
        raise _Nonsense
    return int(value)
