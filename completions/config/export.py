"""The database as a file for `manage.py apply`: stable order, nothing that is a default, no secret."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import yaml
from django.db import models

from completions.config.difference import plain_decimal
from completions.config.problems import Place
from completions.config.schema import SECTIONS
from completions.config.shape import Children, Entry, Field
from completions.config.substitution import escape

NOWHERE = Place("", 0, ())
HEADER = """\
# Written by `manage.py export_config`, read by `manage.py apply`. What is not here has its default.
"""
SECRETS = """\
# No secret is in this file. Set these before you apply it (for a key: the key itself, as it was shown once):
"""
ACCOUNTS = """\
# Members are accounts of the hub and must exist before this file is applied:
"""


def export_text() -> str:
    """The whole configuration. Applied to an empty database with its secrets set, it gives the same hub."""
    return _Export().text()


class _Export:
    def __init__(self) -> None:
        self.variables: list[str] = []
        self.members: set[str] = set()

    def text(self) -> str:
        sections = [
            yaml.dump(
                {section.key: self.list(section, None)},
                Dumper=_Dumper,
                sort_keys=False,
                allow_unicode=True,
                default_flow_style=False,
                width=1_000_000,
            )
            for section in SECTIONS
        ]
        return "\n".join([self.header(), *sections])

    def header(self) -> str:
        text = HEADER
        if self.variables:
            text += SECRETS + "".join(f"#   {name}\n" for name in self.variables)
        if self.members:
            text += ACCOUNTS + "".join(f"#   {name}\n" for name in sorted(self.members))
        return text

    def list(self, link: Children, parent: models.Model | None) -> list[Any]:
        rows = _rows(link, parent)
        return [self.object(self.entry(link, row), row) for row in rows]

    def entry(self, link: Children, row: Any) -> Entry:
        """The row as a file would say it in full: what a default is may depend on the rest."""
        kind = link.kind
        entry = Entry(kind, NOWHERE)
        entry.values = {
            field.name: kind.rows.current(row, field) for field in kind.fields if not field.secret
        }
        for child in kind.children:
            entry.children[child.key] = [self.entry(child, one) for one in _rows(child, row)]
        return entry

    def object(self, entry: Entry, row: Any) -> Any:
        made: dict[str, Any] = {}
        for field in entry.kind.fields:
            for value in self.value(field, entry, row):
                inside = made.setdefault(field.path[0], {}) if len(field.path) > 1 else made
                inside[field.path[-1]] = value
        for child in entry.kind.children:
            if found := self.list(child, row):
                alone = child.single and len(found) == 1 and child.kind.identity not in found[0]
                made[child.key] = found[0] if alone else found
        return made[entry.kind.shorthand] if [*made] == [entry.kind.shorthand] else made

    def value(self, field: Field, entry: Entry, row: Any) -> Iterator[Any]:
        """What the file says of a value: nothing where it is the default."""
        if field.secret:
            if words := entry.kind.rows.placeholder(row):
                yield _Placeholder(self.variable(words))
            return
        value = entry.values[field.name]
        if field.name in entry.kind.rows.relations:
            self.members |= set(value)
            if value:
                yield _written(value)
        elif field.required or value != entry.default(field):
            yield _written(value)

    def variable(self, words: tuple[str, ...]) -> str:
        """An environment variable of its own for a secret: local's key in LOCAL_API_KEY."""
        name = "_".join(re.sub(r"[^A-Z0-9]+", "_", word.upper()).strip("_") for word in words)
        name = f"_{name}" if name[:1].isdigit() else name
        taken, number = name, 2
        while taken in self.variables:
            taken, number = f"{name}_{number}", number + 1
        self.variables.append(taken)
        return taken


def _rows(link: Children, parent: models.Model | None) -> "models.QuerySet[Any]":
    of_parent = {link.parent: parent} if parent is not None else {}
    return link.kind.rows.exported().filter(**of_parent, **link.only).order_by(*link.kind.order)


def _written(value: Any) -> Any:
    """Plain values with `${` escaped, because reading fills variables in everywhere."""
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_written(item) for item in value]
    return escape(value) if isinstance(value, str) else value


class _Placeholder(str):
    """The name of a variable, to be written as ${NAME}."""


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key, no aliases, decimals and moments in full."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _placeholder(dumper: yaml.SafeDumper, value: _Placeholder) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", f"${{{value}}}")


def _decimal(dumper: yaml.SafeDumper, value: Decimal) -> yaml.Node:
    text = plain_decimal(value)
    return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)


def _moment(dumper: yaml.SafeDumper, value: datetime) -> yaml.Node:
    utc = value.astimezone(UTC)
    midnight = not (utc.hour or utc.minute or utc.second or utc.microsecond)
    text = utc.date().isoformat() if midnight else utc.isoformat().replace("+00:00", "Z")
    return dumper.represent_scalar("tag:yaml.org,2002:timestamp", text)


_Dumper.add_representer(_Placeholder, _placeholder)
_Dumper.add_representer(Decimal, _decimal)
_Dumper.add_representer(datetime, _moment)
