"""Tokens of texts and chat prompts, counted offline by tiktoken from the encodings in `llmhub/data/tiktoken`.

`exact` says whether the count is the model's own: so it is for texts of OpenAI's models, and for plain chat
messages of those whose message format OpenAI published. Images, audio, files, tools and tool calls follow
rules of thumb, and other vendors' models are counted with o200k_base: those are estimates.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tiktoken

DATA = Path(__file__).resolve().parent.parent / "llmhub" / "data" / "tiktoken"
# tiktoken names its files by the SHA-1 of their address; the SHA-256 of the content is its `expected_hash`.
FILES = {
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
DEFAULT = "o200k_base"
SAME_TEXT = {"o200k_harmony": "o200k_base"}  # differs in special tokens only, which a text never holds

# Encoding slows down with the length of an unbroken run, and overflows its stack on a million spaces.
PIECE = 50_000  # characters
SHORT = 16  # characters of a text whose count is remembered
# A token of either encoding ends between a letter or digit and one of these: a cut there changes no count.
SEAM = re.compile(r"(?<=[^\W_])(?=[\s,.;:!?，。、；：！？])")

# https://github.com/openai/openai-cookbook/blob/main/examples/How_to_count_tokens_with_tiktoken.ipynb
PER_MESSAGE = 3
PER_NAME = 1
PER_REPLY = 3
PUBLISHED_FORMAT = re.compile(r"gpt-3\.5|gpt-35|gpt-4o|gpt-4(?![.\w])|chatgpt-4o")
PER_FUNCTION = {"cl100k_base": 10, "o200k_base": 7}
PER_PROPERTIES = 3
PER_PROPERTY = 3
PER_ENUM = -3
PER_ENUM_ITEM = 3
AFTER_TOOLS = 12
PER_TOOL_CALL = 3

# Tokens of an image of unknown size, in low and in any other detail (as if 1024 x 1024: four tiles):
# https://platform.openai.com/docs/guides/images-vision#calculating-costs
IMAGES = (("gpt-4o-mini", 2833, 25501), ("gpt-5", 70, 630), ("o1", 75, 675), ("o3", 75, 675), ("", 85, 765))
AUDIO_PER_SECOND = 10  # https://platform.openai.com/docs/guides/realtime-costs
AUDIO_BYTES_PER_SECOND = {"wav": 48_000}  # 24 kHz, 16 bit; compressed formats by the other number
COMPRESSED_BYTES_PER_SECOND = 8_000
FILE_BYTES_PER_TOKEN = 16  # our guess: nobody publishes one

_loaded: set[str] = set()


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens, and whether that is the model's own count."""

    count: int
    exact: bool


def count_text(text: str, model: str | None) -> TokenCount:
    """Tokens of a text. Special tokens in it count as the plain text they are."""
    name, known = _encoding_of(model or "")
    count, seamless = _measured(text, name)
    return TokenCount(count, known and seamless)


def count_messages(
    messages: Sequence[Mapping[str, Any]], model: str | None, tools: Sequence[Mapping[str, Any]] | None = None
) -> TokenCount:
    """Tokens of a chat prompt in OpenAI's shape, with each message's overhead. Odd shapes count too."""
    return ChatPrompt(messages, tools).count(model or "")


def upper_bound(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
) -> int:
    """At least what `count_messages` says for any model, without encoding: a token is at least one byte."""
    return ChatPrompt(messages, tools).upper_bound()


def is_loaded(model: str | None) -> bool:
    """Whether the model's encoding is in memory: else the first count takes a third of a second."""
    return _encoding_of(model or "")[0] in _loaded


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _base_model(model: str) -> str:
    """'openai/gpt-4o' and 'ft:gpt-4o:org::id' are tokenized as 'gpt-4o'."""
    name = model.removeprefix("openai/")
    return name.split(":")[1] if name.startswith("ft:") else name


@lru_cache(maxsize=4096)
def _encoding_of(model: str) -> tuple[str, bool]:
    """The encoding to count with, and whether it is the model's own."""
    from tiktoken.model import encoding_name_for_model

    try:
        name = encoding_name_for_model(_base_model(model))
    except KeyError:
        return DEFAULT, False
    name = SAME_TEXT.get(name, name)
    return (name, True) if name in FILES else (DEFAULT, False)


@cache
def _load(name: str) -> "tiktoken.Encoding":
    """Raises RuntimeError where the file is missing or damaged: tiktoken itself would turn to the network."""
    import tiktoken

    file, digest = FILES[name]
    path = DATA / file
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise RuntimeError(
            f"{path} (the {name} encoding) is missing or damaged. Restore it from the repository."
        )
    os.environ["TIKTOKEN_CACHE_DIR"] = str(DATA)
    encoding = tiktoken.get_encoding(name)
    _loaded.add(name)
    return encoding


def _measured(text: str, encoding: str) -> tuple[int, bool]:
    """Tokens of a text, and whether that is certain."""
    if len(text) <= SHORT:
        return _short(text, encoding), True
    encoder = _load(encoding)
    if len(text) <= 2 * PIECE:
        return len(encoder.encode_ordinary(text)), True
    counts = [(len(encoder.encode_ordinary(piece)), seamless) for piece, seamless in _pieces(text)]
    return sum(count for count, _ in counts), all(seamless for _, seamless in counts)


@lru_cache(maxsize=4096)
def _short(text: str, encoding: str) -> int:
    """Roles and the like come again and again."""
    return len(_load(encoding).encode_ordinary(text))


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """A long text in pieces of bounded length, and whether each ends where a token must end."""
    start = 0
    while len(text) - start > 2 * PIECE:
        seam = SEAM.search(text, start + PIECE, start + 2 * PIECE)
        end = seam.start() if seam else start + 2 * PIECE
        yield text[start:end], seam is not None
        start = end
    yield text[start:], True


class ChatPrompt:
    """A chat prompt taken apart once: its texts, and what is counted beside them, whatever the model."""

    def __init__(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> None:
        self.texts: list[str] = []
        self.plain = True
        self._fixed = PER_REPLY
        self._images: list[bool] = []  # of each, whether it is of low detail
        self._functions = 0
        for message in messages:
            self._message(message)
        if tools:
            self._tools(tools)

    def count(self, model: str) -> TokenCount:
        """Its tokens for `model`."""
        encoding, known = _encoding_of(model)
        exact = known and self.plain and bool(PUBLISHED_FORMAT.match(_base_model(model)))
        count = self._fixed + self._functions * PER_FUNCTION[encoding]
        if self._images:
            low, high = _image_tokens(_base_model(model))
            count += sum(low if is_low else high for is_low in self._images)
        for text in self.texts:
            tokens, seamless = _measured(text, encoding)
            count += tokens
            exact = exact and seamless
        return TokenCount(count, exact)

    def upper_bound(self) -> int:
        """At least its tokens for any model, without encoding: a token is at least one byte."""
        bound = self._fixed + self._functions * max(PER_FUNCTION.values())
        if self._images:
            low, high = _image_tokens("gpt-4o-mini")  # the dearest
            bound += sum(low if is_low else high for is_low in self._images)
        return bound + sum(map(_bytes, self.texts))

    def _message(self, message: Mapping[str, Any]) -> None:
        self._fixed += PER_MESSAGE
        for key, value in message.items():
            if key in ("role", "name") and isinstance(value, str):
                self.texts.append(value)
                self._fixed += PER_NAME if key == "name" else 0
            elif key == "content":
                self._content(value)
            elif key == "tool_calls" and isinstance(value, list):
                self._tool_calls(value)
            elif value is not None:
                self._other(value)

    def _content(self, content: object) -> None:
        if isinstance(content, str):
            self.texts.append(content)
        elif isinstance(content, list):
            self.plain = self.plain and len(content) == 1
            for part in content:
                self._part(part)
        elif content is not None:
            self._other(content)

    def _part(self, part: object) -> None:
        match part:
            case {"type": "text", "text": str(text)}:
                self.texts.append(text)
                return
            case {"type": "image_url", **image}:
                self._image(image.get("image_url"))
            case {"type": "input_audio", "input_audio": {"data": str(data), **audio}}:
                rate = AUDIO_BYTES_PER_SECOND.get(str(audio.get("format")), COMPRESSED_BYTES_PER_SECOND)
                self._fixed += _decoded(data) * AUDIO_PER_SECOND // rate + 1
            case {"type": "file", "file": {"file_data": str(data)}}:
                self._fixed += _decoded(data) // FILE_BYTES_PER_TOKEN + 1
            case _:
                self._other(part)
        self.plain = False

    def _image(self, image: object) -> None:
        detail = image.get("detail") if isinstance(image, Mapping) else None
        self._images.append(detail == "low")

    def _tool_calls(self, calls: list[Any]) -> None:
        self.plain = False
        for call in calls:
            match call:
                case {"function": {"name": str(name), "arguments": str(arguments)}}:
                    self._fixed += PER_TOOL_CALL
                    self.texts += (name, arguments)
                case _:
                    self._other(call)

    def _tools(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self.plain = False
        for tool in tools:
            match tool:
                case {"function": {"name": str(name), **function}}:
                    self._functions += 1
                    self.texts.append(f"{name}:{_line(function.get('description'))}")
                    self._properties(function.get("parameters"))
                case _:
                    self._other(tool)
        self._fixed += AFTER_TOOLS

    def _properties(self, schema: object) -> None:
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        if not properties or not isinstance(properties, Mapping):
            return
        self._fixed += PER_PROPERTIES
        for name, value in properties.items():
            self._fixed += PER_PROPERTY
            spec = value if isinstance(value, Mapping) else {}
            self.texts.append(f"{name}:{spec.get('type', '')}:{_line(spec.get('description'))}")
            if isinstance(items := spec.get("enum"), list):
                self._fixed += PER_ENUM + PER_ENUM_ITEM * len(items)
                self.texts += map(str, items)
            self._properties(spec)
            self._properties(spec.get("items"))

    def _other(self, value: object) -> None:
        """What no rule covers counts as its JSON."""
        self.plain = False
        self.texts.append(
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )


@lru_cache(maxsize=256)
def _image_tokens(model: str) -> tuple[int, int]:
    """Of an image in low and in any other detail."""
    return next((low, high) for name, low, high in IMAGES if model.startswith(name))


def _line(description: object) -> str:
    return description.removesuffix(".") if isinstance(description, str) else ""


def _decoded(data: str) -> int:
    """Bytes that a base64 text stands for."""
    return len(data) * 3 // 4
