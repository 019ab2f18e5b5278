"""Tokens of texts and chat prompts, counted offline by tiktoken from the encodings in `llmhub/data/tiktoken`.

`exact` says whether the count is the model's own: so it is for texts of OpenAI's models, and for plain chat
messages of those whose message format OpenAI published. Images, audio, files, tools and tool calls follow
rules of thumb, and other vendors' models are counted with o200k_base: those are estimates.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers.wire_json import dumped

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

# Tokens of an image of unknown size: in low detail, in any other (as if 1024 x 1024: four tiles), and of the
# largest there can be (2048 x 768: eight tiles). Models that count patches, and other vendors', know no tiles
# and no low detail; none of them takes more than PATCHES from one image (OpenAI's `detail: original`).
# https://platform.openai.com/docs/guides/images-vision#calculating-costs
PATCHES = 10_000
IMAGES = (
    ("gpt-4o-mini", 2833, 25501, 48169),
    ("gpt-4o", 85, 765, 1445),
    ("gpt-4-", 85, 765, 1445),
    ("gpt-5", 70, 630, PATCHES),
    ("o1", 75, 675, 1275),
    ("o3", 75, 675, 1275),
    ("", 85, 765, PATCHES),
)
AUDIO_PER_SECOND = 10  # https://platform.openai.com/docs/guides/realtime-costs
AUDIO_BYTES_PER_SECOND = {"wav": 48_000}  # 24 kHz, 16 bit; compressed formats by the other number
COMPRESSED_BYTES_PER_SECOND = 8_000
AUDIO_LEAST_BYTES_PER_TOKEN = 20  # 6 kbit/s of Opus, and the 32 tokens a second of the dearest vendor
FILE_BYTES_PER_TOKEN = 16  # our guess: nobody publishes one

# Of a tool and of a JSON schema, what OpenAI's formula says something of, where it is of that type.
Covered = Mapping[str, type | tuple[type, ...]]
IN_TOOL: Covered = {"type": str, "function": dict}
IN_FUNCTION: Covered = {"name": str, "description": str, "parameters": dict, "strict": bool}
IN_SCHEMA: Covered = {"type": str, "properties": dict, "items": dict, "additionalProperties": bool}
IN_PROPERTY: Covered = {**IN_SCHEMA, "description": str, "enum": list}

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


def is_loaded(model: str | None) -> bool:
    """Whether the model's encoding is in memory: else the first count takes a third of a second."""
    return _encoding_of(model or "")[0] in _loaded


def load(models: Iterable[str]) -> None:
    """Read the encodings of `models`, so that no call of theirs has to wait for it."""
    for name in {_encoding_of(model)[0] for model in models}:
        _load(name)


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
    """A chat prompt taken apart once: its texts, and what is counted beside them, whatever the model.

    `beside`: what else of the request a model reads. `open_ended`: it points at what it does not hold.
    """

    def __init__(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        self.texts: list[str] = []
        self.plain = not (tools or beside)
        self.open_ended = False
        self._fixed = PER_REPLY
        self._images: list[bool] = []  # of each, whether it is of low detail
        self._media = self._media_most = 0  # tokens of audio and files: as a rule, and at most
        self._margin = 0  # bytes that some models read and others do not
        self._declared = {**({"tools": tools} if tools else {}), **(beside or {})}
        self._declarations: _Declarations | None = None  # made where tokens are counted
        for message in messages:
            self._message(message)
        declared = len(dumped(self._declared)) + AFTER_TOOLS if self._declared else 0
        self._size = sum(map(_bytes, self.texts)) + declared

    def count(self, model: str) -> TokenCount:
        """Its tokens for `model`."""
        encoding, known = _encoding_of(model)
        exact = known and self.plain and bool(PUBLISHED_FORMAT.match(_base_model(model)))
        count = self._fixed + self._media
        texts: Iterable[str] = self.texts
        if self._images:
            low, usual, _ = _image_tokens(_base_model(model))
            count += sum(low if is_low else usual for is_low in self._images)
        if self._declared:
            declared = self._declarations = self._declarations or _Declarations(self._declared)
            count += declared.fixed + declared.functions * PER_FUNCTION[encoding]
            texts = chain(texts, declared.texts)
        for text in texts:
            tokens, seamless = _measured(text, encoding)
            count += tokens
            exact = exact and seamless
        return TokenCount(count, exact)

    def slack(self, model: str) -> int:
        """What is to be added to `count` for the largest images, the densest audio and files there can be."""
        low, usual, most = _image_tokens(_base_model(model))
        of_low = most - low if most == PATCHES else 0
        images = sum(of_low if is_low else most - usual for is_low in self._images)
        return self._media_most - self._media + images

    def upper_bound(self) -> int:
        """At least its tokens for any model, without encoding: a token is at least one byte."""
        low = self._images.count(True)
        images = low * PATCHES + (len(self._images) - low) * IMAGES[0][3]  # the dearest
        return self._fixed + self._media_most + images + self._margin + self._size

    def rough(self, bytes_per_token: int) -> int:
        """Its tokens, roughly, for any model and without encoding."""
        _, low, usual, _ = IMAGES[-1]
        images = sum(low if is_low else usual for is_low in self._images)
        return (self._fixed + self._size) // bytes_per_token + self._media + images

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
                size = _decoded(data)
                self._media += size * AUDIO_PER_SECOND // rate + 1
                self._media_most += size // AUDIO_LEAST_BYTES_PER_TOKEN + 1
            case {"type": "file", "file": {"file_data": str(data)}}:
                self._media += _decoded(data) // FILE_BYTES_PER_TOKEN + 1
                self._media_most += _decoded(data) + 1
            case _:
                self.open_ended = self.open_ended or _points_elsewhere(part)
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
                    self._margin += _bytes(str(call.get("id")))
                case _:
                    self._other(call)

    def _other(self, value: object) -> None:
        """What no rule covers counts as its JSON."""
        self.plain = False
        self.texts.append(_text(value))


class _Declarations:
    """What a request tells the model beside its messages: functions by OpenAI's formula, the rest as JSON."""

    def __init__(self, declared: Mapping[str, Any]) -> None:
        self.texts: list[str] = []
        self.fixed = 0
        self.functions = 0
        for name, value in declared.items():
            if name in ("tools", "functions") and isinstance(value, list | tuple):
                self.fixed = AFTER_TOOLS
                for tool in value:
                    self._tool(tool if name == "tools" else {"function": tool})
            else:
                self.texts.append(_text(value))

    def _tool(self, tool: object) -> None:
        match tool:
            case {"function": {"name": str(name), **function}, **rest}:
                self.functions += 1
                self.texts.append(f"{name}:{_line(function.get('description'))}")
                self._schema(function.get("parameters"), IN_SCHEMA)
                self._rest(function, IN_FUNCTION)
                self._rest(rest, IN_TOOL)
            case _:
                self.texts.append(_text(tool))

    def _schema(self, schema: object, covered: Covered) -> None:
        """Its properties; and what the formula is silent about, such as anyOf and $defs."""
        if not isinstance(schema, dict):
            return
        properties = schema.get("properties")
        if isinstance(properties, dict) and properties:
            self.fixed += PER_PROPERTIES
            for name, spec in properties.items():
                self._property(name, spec)
        self._schema(schema.get("items"), IN_SCHEMA)
        required = schema.get("required")
        if isinstance(required, list) and all(isinstance(name, str) for name in required):
            self.texts += set(required).difference(properties if isinstance(properties, dict) else ())
            covered = {**covered, "required": list}
        self._rest(schema, covered)

    def _property(self, name: str, value: object) -> None:
        self.fixed += PER_PROPERTY
        spec = value if isinstance(value, dict) else {}
        kind = spec.get("type", "")
        self.texts.append(f"{name}:{kind if isinstance(kind, str) else ''}:{_line(spec.get('description'))}")
        if isinstance(items := spec.get("enum"), list):
            self.fixed += PER_ENUM + PER_ENUM_ITEM * len(items)
            self.texts += map(_text, items)
        self._schema(spec, IN_PROPERTY)

    def _rest(self, given: Mapping[Any, Any], covered: Covered) -> None:
        rest = {name: value for name, value in given.items() if not isinstance(value, covered.get(name, ()))}
        if rest:
            self.texts.append(_text(rest))


def _points_elsewhere(part: object) -> bool:
    """Whether a part of a message names a file or a video that is not in it: nobody knows how long it is."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    return isinstance(kind, str) and any(word in kind for word in ("file", "video", "document"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


@lru_cache(maxsize=256)
def _image_tokens(model: str) -> tuple[int, int, int]:
    """Of an image in low detail, in any other, and at most."""
    return next((low, usual, most) for name, low, usual, most in IMAGES if model.startswith(name))


def _line(description: object) -> str:
    return description.removesuffix(".") if isinstance(description, str) else ""


def _decoded(data: str) -> int:
    """Bytes that a base64 text stands for."""
    return len(data) * 3 // 4
