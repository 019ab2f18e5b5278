"""`${NAME}` and `${file:PATH}` inside a text; `$${` stands for a plain `${`."""

import os
import re
from pathlib import Path

PATTERN = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
FILE_CAP_BYTES = 65536


class Refused(ValueError):
    """A value that cannot be used; the message says why and what would be right."""


class Substituted(str):
    """Text that came, in part or whole, from outside the file: to be shown only as it is written there."""

    expression: str

    def __new__(cls, value: str, expression: str) -> "Substituted":
        made = super().__new__(cls, value)
        made.expression = expression
        return made

    def __repr__(self) -> str:
        return repr(self.expression)


def substitute(text: str, folder: Path) -> str:
    """`text` with its variables filled in; relative files are looked up in `folder`. Raises Refused."""
    if "${" not in text:
        return text
    outside: list[str] = []

    def fill(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if match[1] is None:
            raise Refused("'${' has no closing '}'; write '$${' for a plain '${'")
        outside.append(_value(match[1], folder))
        return outside[-1]

    filled = PATTERN.sub(fill, text)
    return Substituted(filled, text) if outside else filled


def _value(reference: str, folder: Path) -> str:
    if reference.startswith("file:"):
        return _from_file(reference.removeprefix("file:"), folder)
    if not NAME.match(reference):
        raise Refused(f"'${{{reference}}}' names neither a variable (${{NAME}}) nor a file (${{file:PATH}})")
    value = os.environ.get(reference)
    if value is None:
        raise Refused(f"the environment variable {reference} is not set")
    if not value:
        raise Refused(f"the environment variable {reference} is empty; set it, or leave the field out")
    return value


def _from_file(name: str, folder: Path) -> str:
    if not name:
        raise Refused("'${file:}' names no file; write ${file:PATH}")
    try:
        with (folder / name).open("rb") as file:
            content = file.read(FILE_CAP_BYTES + 1)
        if len(content) > FILE_CAP_BYTES:
            raise Refused(f"the file {name} is longer than {FILE_CAP_BYTES} bytes")
        value = content.decode().rstrip("\r\n")
    except OSError as error:
        raise Refused(f"the file {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise Refused(f"the file {name} is not UTF-8 text") from None
    if not value:
        raise Refused(f"the file {name} is empty; fill it, or leave the field out")
    return value


def escape(text: str) -> str:
    """`text` as it must be written so that reading it back gives the same."""
    return text.replace("${", "$${")
