"""What an apply changed, or would change: for people to read. No secret is ever part of it."""

import json
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from providers.types import Secret

SIGNS = {"+": "added", "~": "changed", "-": "removed"}


@dataclass(frozen=True, slots=True)
class Change:
    """One object: `path` as providers/local/models/big, `fields` as (name, what is to be shown)."""

    sign: str
    path: str
    fields: tuple[tuple[str, str], ...] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key made by this apply, known in full only now."""

    project: str
    name: str
    secret: Secret


@dataclass
class Difference:
    """`changes` in the order they were made; `notes` on what was left alone; `issued` keys to show once."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    issued: list[IssuedKey] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def render(self) -> str:
        lines = []
        for change in self.changes:
            lines.append(f"{change.sign} {change.path}" + (f" ({change.remark})" if change.remark else ""))
            lines += [f"    {name}: {shown}" for name, shown in change.fields]
        lines += [f"! {note}" for note in self.notes]
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        if not self.changes:
            return "No changes."
        counts = {sign: sum(change.sign == sign for change in self.changes) for sign in SIGNS}
        return ", ".join(f"{count} {SIGNS[sign]}" for sign, count in counts.items() if count) + "."


def value_text(value: Any) -> str:
    """A value as the difference shows it."""
    if value is None or value == "":
        return "none"
    if isinstance(value, Decimal):
        return plain_decimal(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else str(value)


def plain_decimal(value: Decimal) -> str:
    """Without exponent and without zeros at the end: 0.000000001, 2.5, 10."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def secret_text(had: bool, has: bool) -> str:
    return "removed" if not has else "changed" if had else "set"
