"""Tool calls as upstreams send them, of any shape: joined piece by piece, and as text to be counted."""

from collections.abc import Iterable, Mapping
from typing import Any

from providers.types import JSON
from providers.wire_json import dumped

GROWING = {"function": "arguments", "custom": "input"}  # of each kind of call, the field that comes in pieces
NAMING = frozenset(("id", "index", "type"))


class ToolCalls(dict[int, JSON]):
    """The calls of a streamed message, numbered as they began.

    A piece belongs to the call at its index, unless it names another id: then it begins a new one, for some
    vendors give all calls the same index. Without an index it belongs to its id's call, or to the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[int, int] = {}  # by index: the call that goes on there
        self._known: dict[tuple[int | None, str], int] = {}  # by index and id, and by id alone
        self._places: list[int] = []  # each call's index, or that of the one before it
        self._last = -1

    def add(self, piece: JSON) -> int:
        """Join a piece to its call: names come once, arguments in pieces. How many characters those had."""
        call = self[self._number(piece)]
        received = 0
        for name, value in piece.items():
            if value is None or value == "" or name == "index":
                continue
            if name in GROWING:
                received += _grow(call, name, value)
            else:
                call[name] = value
        return received

    def keep(self, calls: Iterable[JSON]) -> None:
        """The calls of a whole answer, each as it came."""
        for call in calls:
            self._places.append(len(self))
            self[len(self)] = call

    def in_order(self) -> list[JSON]:
        """As a message lists them: by index, then as they began."""
        return [self[number] for number in sorted(self, key=self._places.__getitem__)]

    def _number(self, piece: JSON) -> int:
        """Which call a piece belongs to; it may begin it."""
        index, own = _index(piece.get("index")), _text(piece.get("id"))
        number = self._known.get((index, own)) if own else None
        if number is None:
            number = self._last if index is None else self._open.get(index, -1)
            if number < 0 or self._is_another(self[number], piece, own, placed=index is not None):
                number = self._begin(piece, index)
        self._last = number
        if index is not None:
            self._open[index] = number
        if own:
            self._known[index, own] = self._known[None, own] = number
        return number

    def _is_another(self, call: JSON, piece: JSON, own: str, *, placed: bool) -> bool:
        """Whether `piece` is none of `call`, after which it came: another id, or a second name."""
        if own and call["id"]:
            return own != _text(call["id"])
        return not placed and bool(_name(piece) and _name(call))

    def _begin(self, piece: JSON, index: int | None) -> int:
        kind = piece.get("type") or ("custom" if "custom" in piece else "function")
        number = len(self)
        self[number] = {"id": None, "type": kind}
        if kind == "function":
            self[number]["function"] = {"arguments": ""}
        before = self._places[self._last] if self._places else 0
        self._places.append(before if index is None else index)
        return number


def call_text(call: Any) -> str:
    """What a tool call says: its name and arguments."""
    if not isinstance(call, Mapping):
        return _text(call)
    kinds = [kind for kind in GROWING if kind in call]
    if not kinds:  # a tool of a kind that nobody knows yet
        rest = {name: value for name, value in call.items() if name not in NAMING}
        return _text(rest) if rest else ""
    return "".join(called_text(call[kind], GROWING[kind]) for kind in kinds)


def called_text(called: Any, field: str = "arguments") -> str:
    """Name and arguments of what is called."""
    if not isinstance(called, Mapping):
        return _text(called)
    return _text(called.get("name")) + _text(called.get(field))


def numbered(calls: Any) -> Any:
    """The tool calls of a whole message as those of a stream, where each has an index."""
    if not isinstance(calls, list):
        return calls
    return [
        {**call, "index": number if _index(call.get("index")) is None else _index(call["index"])}
        if isinstance(call, dict)
        else call
        for number, call in enumerate(calls)
    ]


def _grow(call: JSON, kind: str, value: Any) -> int:
    """Add what is called, or a piece of it, to its call. How many characters of arguments it brought."""
    field = GROWING[kind]
    if not isinstance(value, Mapping):  # a text can be the name alone
        value = {"name" if isinstance(value, str) else field: value}
    whole = call.setdefault(kind, {})
    for name, part in value.items():
        if name == field:
            whole[field] = whole.get(field, "") + _text(part)
        elif part is not None and part != "":
            whole[name] = part
    return len(_text(value.get(field)))


def _name(call: JSON) -> Any:
    """What is called, by a call or by a piece of one."""
    called = next((call[kind] for kind in GROWING if call.get(kind)), None)
    return called.get("name") if isinstance(called, Mapping) else called


def _index(value: Any) -> int | None:
    """The index of a call, also where a vendor sends it as text; None: there is none."""
    if isinstance(value, str) and value.isdecimal():
        return int(value[:9])
    return value if type(value) is int else None


def _text(value: Any) -> str:
    """A text as it is, nothing as none, anything else as its JSON: some send arguments as an object."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else dumped(value).decode()
    except RecursionError:  # it could be read, but is nested too deeply to be written
        return "{}"
