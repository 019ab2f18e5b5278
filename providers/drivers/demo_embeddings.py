"""The demo provider's vectors: hashed words and their parts, so that alike texts lie near each other."""

import base64
import functools
import hashlib
import math
import re
import struct
from typing import Any

import tiktoken

from providers.types import JSON, Answer, Target, Usage

DIMENSIONS = 256
SHORTEST, LONGEST = 1, 2048  # dimensions that may be asked for
WHOLE, PART = 1.0, 0.4  # how much a word, and three of its letters, weigh


def embeddings(target: Target, body: JSON) -> Answer:
    """An answer in OpenAI's shape: a unit vector for each input."""
    asked = body.get("dimensions")
    size = asked if isinstance(asked, int) and SHORTEST <= asked <= LONGEST else DIMENSIONS
    packed = body.get("encoding_format") == "base64"
    inputs = _inputs(body.get("input"))
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
        for index, vector in enumerate(_vector(prompt_text(one), size) for one in inputs)
    ]
    used = sum(len(one) if isinstance(one, list) else len(encoding().encode_ordinary(one)) for one in inputs)
    usage = {"prompt_tokens": used, "total_tokens": used}
    answer = {"object": "list", "data": data, "model": target.upstream_model, "usage": usage}
    return Answer(answer, usage=Usage(prompt=used))


def prompt_text(prompt: Any) -> str:
    """The text of a prompt of the older wires: text, texts, or tokens."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt:
        if isinstance(prompt[0], int):
            return encoding().decode([token for token in prompt if isinstance(token, int)], errors="replace")
        return prompt_text(prompt[0])
    return ""


def _inputs(given: Any) -> list[Any]:
    """The single inputs: each a text, or a list of tokens."""
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return given
    return [given if isinstance(given, list) else str(given or "")]


def _vector(text: str, size: int) -> list[float]:
    vector = [0.0] * size
    for word in re.findall(r"\w+", text.lower()):
        _add(vector, word, WHOLE)
        for start in range(len(word) - 2):
            _add(vector, word[start : start + 3], PART)
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / norm for value in vector]


def _add(vector: list[float], part: str, weight: float) -> None:
    number = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "big")
    vector[number % len(vector)] += weight if number >> 63 else -weight


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@functools.cache
def encoding() -> tiktoken.Encoding:
    """Loaded once, from TIKTOKEN_CACHE_DIR; takes a moment and 70 MiB."""
    return tiktoken.get_encoding("o200k_base")
