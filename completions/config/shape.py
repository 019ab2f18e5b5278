"""What a schema is made of, and what a file that fits it becomes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import models

from completions.config.difference import value_text
from completions.config.problems import Place

if TYPE_CHECKING:
    from completions.config.rows import Rows

Reader = Callable[[Any], Any]  # a value of the file to a value of the row; raises Refused


@dataclass(frozen=True)
class Field:
    """One value of an object. A dot in `key` means a mapping: timeouts.connect stands in `timeouts:`."""

    key: str
    read: Reader
    attribute: str = ""  # of the row; left out: the key
    required: bool = False
    secret: bool = False  # never shown, never exported
    kept: bool = False  # left out of the file: the stored value stays, instead of the default coming back
    default: Callable[["Entry"], Any] | None = None  # left out: the model field's own default

    @property
    def name(self) -> str:
        return self.attribute or self.key

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.key.split("."))


@dataclass(frozen=True)
class Children:
    """A list of objects that belong to an object. `parent` is the foreign key that says so."""

    key: str
    kind: "Kind"
    parent: str
    single: bool = False  # one mapping without a list around it is a list of one
    only: Mapping[str, Any] = field(
        default_factory=dict
    )  # of the rows with that parent, those that are meant


@dataclass(frozen=True)
class Kind:
    """One kind of object: its table, the field that tells objects apart, its values and what it owns.

    `within` are flags that tell apart objects of the same `identity`: each set one is named after it.
    """

    word: str
    rows: "Rows"
    identity: str
    fields: tuple[Field, ...]
    children: tuple[Children, ...] = ()
    shorthand: str = ""  # a bare text stands for {shorthand: text}
    within: tuple[str, ...] = ()

    @property
    def model(self) -> type[models.Model]:
        return self.rows.model

    @property
    def order(self) -> tuple[str, ...]:
        return (self.identity, *self.within)

    def identity_of(self, row: Any) -> Any:
        """What tells a row apart from others of its parent: one value, or a tuple led by it."""
        values = tuple(getattr(row, name) for name in self.order)
        return values if self.within else values[0]

    def identity_text(self, identity: Any) -> str:
        if not self.within or identity is None:
            return value_text(identity)
        flags = [name for name, is_set in zip(self.within, identity[1:], strict=True) if is_set]
        return " ".join([value_text(identity[0]), *flags])

    def field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)

    def keys(self) -> list[str]:
        """What may stand in an object of this kind, in the order of the schema."""
        names = [field.path[0] for field in self.fields] + [child.key for child in self.children]
        return list(dict.fromkeys(names))


@dataclass
class Entry:
    """One object of a file, read: values by the name of the row's attribute, and where each stands."""

    kind: Kind
    place: Place
    values: dict[str, Any] = field(default_factory=dict, repr=False)
    places: dict[str, Place] = field(default_factory=dict)
    faulty: set[str] = field(default_factory=set)  # attributes and lists whose problems are already reported
    children: dict[str, list["Entry"]] = field(default_factory=dict)

    @property
    def identity(self) -> Any:
        """As `Kind.identity_of` says it of a row; None where the file's cannot be read."""
        first = self.values.get(self.kind.identity)
        if first is None or not self.kind.within:
            return first
        return (first, *(self.wanted(self.kind.field(name)) for name in self.kind.within))

    def where(self, name: str) -> Place:
        """The place of an attribute or list; of the object itself for anything else."""
        if name in self.places:
            return self.places[name]
        keys = {field.name: field.key for field in self.kind.fields} | {
            c.key: c.key for c in self.kind.children
        }
        return self.place.below(keys[name]) if name in keys else self.place

    def wanted(self, wanted: Field) -> Any:
        """The value the row shall have: the file's, else the default."""
        return self.values[wanted.name] if wanted.name in self.values else self.default(wanted)

    def default(self, wanted: Field) -> Any:
        if wanted.default is not None:
            return wanted.default(self)
        return self.kind.model._meta.get_field(wanted.name).get_default()  # type: ignore[union-attr]
