"""Whole requests: every field that a call of each operation may have, for tests of what tells calls apart."""

from collections.abc import Mapping
from typing import Any

from providers.types import Operation

TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "string", "enum": ["sky", "sea"]}},
            "required": ["at"],
        },
    },
}
CALLED = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
# Every field that can change an answer, each with a value that has all of its parts.
ASKED: Mapping[Operation, dict[str, Any]] = {
    Operation.CHAT: {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "name": "ada",
                "content": [
                    {"type": "text", "text": "Look."},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
                ],
            },
            {"role": "assistant", "content": None, "refusal": "No.", "tool_calls": [CALLED]},
            {"role": "tool", "tool_call_id": "c1", "content": "blue"},
        ],
        "audio": {"voice": "alloy", "format": "mp3"},
        "frequency_penalty": 0.5,
        "function_call": "auto",
        "functions": [{"name": "old", "parameters": {"type": "object"}}],
        "logit_bias": {"50256": -100},
        "logprobs": True,
        "max_tokens": 100,
        "min_p": 0.1,
        "modalities": ["text", "audio"],
        "n": 2,
        "parallel_tool_calls": False,
        "prediction": {"type": "content", "content": "Blue."},
        "presence_penalty": -0.5,
        "prompt_cache_key": "p",
        "reasoning_effort": "low",
        "repetition_penalty": 1.1,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "strict": True, "schema": {"type": "object", "properties": {}}},
        },
        "safety_identifier": "someone",
        "seed": 7,
        "service_tier": "flex",
        "stop": ["END", "STOP"],
        "store": False,
        "temperature": 0.25,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "tools": [TOOL, {"type": "function", "function": {"name": "other"}}],
        "top_k": 40,
        "top_logprobs": 3,
        "top_p": 0.9,
        "verbosity": "low",
        "web_search_options": {"search_context_size": "low"},
        "vendor_field": {"of": ["a", "vendor"]},
    },
    Operation.COMPLETION: {
        "prompt": ["Once", "Twice"],
        "best_of": 3,
        "echo": True,
        "frequency_penalty": 0.5,
        "logit_bias": {"50256": -100},
        "logprobs": 5,
        "max_tokens": 100,
        "n": 2,
        "presence_penalty": -0.5,
        "seed": 7,
        "stop": ["END"],
        "suffix": "The end.",
        "temperature": 0.25,
        "top_p": 0.9,
        "vendor_field": 1,
    },
    Operation.EMBEDDING: {
        "input": ["a", "b"],
        "encoding_format": "float",
        "dimensions": 256,
        "input_type": "query",
    },
}
# They say how the answer is delivered, or what is noted of it.
BESIDE: dict[str, Any] = {
    "user": "someone",
    "stream": True,
    "stream_options": {"include_usage": True},
    "metadata": {"a": "b"},
}
