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


PLAIN = frozenset(("prompt_tokens", "completion_tokens", "total_tokens"))
NOTHING = ParsedUsage(None)
NONSENSE = ParsedUsage(None, anomaly=True)


def parse_usage(raw: Any) -> ParsedUsage:
    """`raw` is the `usage` object of an answer (or None).

    Read: OpenAI's names (https://platform.openai.com/docs/api-reference/chat/object), DeepSeek's
    prompt_cache_hit_tokens, Anthropic's input_tokens with its cache classes beside it, and Gemini's
    usageMetadata. A part that is greater than its whole makes all of it nonsense.

    The same token may be audio and cached; it is priced once, so it is told as cached alone.
    """
    if raw is None:
        return NOTHING
    if not isinstance(raw, Mapping):
        return NONSENSE
    if (plain := _plain(raw)) is not None:
        return plain
    try:
        usage = _usage(raw)
    except _Nonsense:
        return NONSENSE
    if usage is None:
        return NOTHING
    in_prompt = max(usage.cached + usage.cache_write, usage.audio_prompt)
    in_completion = max(usage.reasoning, usage.audio_completion)
    if in_prompt > usage.prompt or in_completion > usage.completion:
        return NONSENSE
    audio_prompt = min(usage.audio_prompt, usage.prompt - usage.cached - usage.cache_write)
    audio_completion = min(usage.audio_completion, usage.completion - usage.reasoning)
    return ParsedUsage(usage._replace(audio_prompt=audio_prompt, audio_completion=audio_completion))


def _plain(raw: Mapping[str, Any]) -> ParsedUsage | None:
    """OpenAI's three figures with nothing beside them, which most answers have; None: look closer."""
    if raw.keys() <= PLAIN:
        prompt, completion = raw.get("prompt_tokens"), raw.get("completion_tokens")
        if type(prompt) is not int or type(completion) is not int or prompt < 0 or completion < 0:
            return None
        if raw.get("total_tokens") == prompt + completion <= MAX_TOKENS:
            return ParsedUsage(Usage(prompt, completion))
    return None


def usage_of(body: Mapping[str, Any]) -> ParsedUsage:
    """The usage that an answer or chunk states, wherever its vendor puts it."""
    raw = body.get("usage")
    if raw is None and isinstance(extra := body.get("x_groq"), Mapping):
        raw = extra.get("usage")
    return parse_usage(body.get("usageMetadata") if raw is None else raw)


def falls_behind(later: Usage, earlier: Usage) -> bool:
    """Whether a later total of the same answer cannot be: totals never shrink, nor become nothing.

    Before it has begun to count its output an upstream may still correct its prompt.
    """
    if not later.total or later.completion < earlier.completion:
        return True
    return bool(earlier.completion) and later.total < earlier.total


def _usage(raw: Mapping[str, Any]) -> Usage | None:
    if "input_tokens" in raw and "prompt_tokens" not in raw:
        return _anthropic(raw)
    if "promptTokenCount" in raw:
        return _gemini(raw)
    prompt, completion = _count(raw, "prompt_tokens"), _count(raw, "completion_tokens")
    if prompt is None and completion is None:
        return None
    if prompt is None:  # a count of the output alone is no statement of what was used
        raise _Nonsense
    in_prompt = _details(raw, "prompt_tokens_details")
    in_completion = _details(raw, "completion_tokens_details")
    cached = _first(in_prompt, "cached_tokens")
    if cached is None:
        cached = _first(raw, "prompt_cache_hit_tokens", "cache_read_input_tokens")
    written = _first(in_prompt, "cache_write_tokens", "cache_creation_tokens")
    reasoning = _count(in_completion, "reasoning_tokens")
    beside = _beside(raw, prompt + (completion or 0), reasoning)
    heard = 0
    if _measured(raw, "prompt_audio_seconds"):
        heard, beside = beside, 0
    return Usage(
        prompt=prompt + heard,
        completion=(completion or 0) + beside,
        cached=cached or 0,
        cache_write=written or _count(raw, "cache_creation_input_tokens") or 0,
        reasoning=reasoning or beside,
        audio_prompt=_count(in_prompt, "audio_tokens") or heard,
        audio_completion=_count(in_completion, "audio_tokens") or 0,
    )


def _beside(raw: Mapping[str, Any], stated: int, reasoning: int | None) -> int:
    """Tokens that are in the total alone: the thought of xAI and Gemini, Mistral's of an audio prompt.

    https://docs.x.ai/docs/guides/reasoning; https://ai.google.dev/gemini-api/docs/thinking;
    https://docs.mistral.ai/capabilities/audio/
    """
    beside = (_count(raw, "total_tokens") or 0) - stated
    return beside if beside > 0 and reasoning in (None, 0, beside) else 0


def _gemini(raw: Mapping[str, Any]) -> Usage:
    """Gemini's own names: thought is beside the candidates, what its tools read beside the prompt.

    https://ai.google.dev/api/generate-content#UsageMetadata
    """
    thought = _count(raw, "thoughtsTokenCount") or 0
    return Usage(
        prompt=(_count(raw, "promptTokenCount") or 0) + (_count(raw, "toolUsePromptTokenCount") or 0),
        completion=(_count(raw, "candidatesTokenCount") or 0) + thought,
        cached=_count(raw, "cachedContentTokenCount") or 0,
        reasoning=thought,
        audio_prompt=_audio(raw.get("promptTokensDetails")),
        audio_completion=_audio(raw.get("candidatesTokensDetails")),
    )


def _audio(details: Any) -> int:
    if not isinstance(details, list):
        return 0
    parts = [part for part in details if isinstance(part, Mapping) and part.get("modality") == "AUDIO"]
    return sum(_count(part, "tokenCount") or 0 for part in parts)


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


def _measured(raw: Mapping[str, Any], name: str) -> bool:
    """Whether a measure is there and above zero."""
    value = raw.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _count(raw: Mapping[str, Any], name: str) -> int | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TOKENS:
        raise _Nonsense
    if value != int(value):
        raise _Nonsense
    return int(value)
