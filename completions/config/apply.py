"""Makes the database what the configuration says, in one transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import models, transaction

from completions import accounts, keys
from completions.config.difference import Change, Difference, secret_text, value_text
from completions.config.loader import Document
from completions.config.problems import Problems
from completions.config.reading import read
from completions.config.schema import SECTIONS
from completions.config.shape import Children, Entry, Field
from providers import registry

Configuration = Document | Sequence[Document] | Mapping[str, Any]


def apply_config(document: Configuration, *, dry_run: bool = False, prune: bool = False) -> Difference:
    """Bring providers, models, prices, projects and keys to what `document` says; the difference that made.

    Objects the document names get its values, and defaults where it is silent. What it does not name stays,
    unless `prune`; a section it lacks altogether is left alone even then. A mapping made in Python is taken
    as it is. Raises ConfigRefused with every problem; then, as with `dry_run`, nothing is changed.
    """
    problems = Problems()
    sections: dict[str, list[Entry]] = {}
    for one in _documents(document):
        problems.keep_secret(one.secrets)
        problems.found += one.problems.found
        for key, entries in read(one, SECTIONS, problems).items():
            sections.setdefault(key, []).extend(entries)
    run = _Run(problems, prune)
    with transaction.atomic():
        for section in SECTIONS:
            if section.key in sections:
                run.list(section, sections[section.key], None, section.key)
        undone = dry_run or bool(problems.found)
        transaction.set_rollback(undone)
    if undone:
        keys.forget_pepper()  # it may have been made in the transaction that is now undone
        registry.forget()
        accounts.forget()
    problems.raise_if_any()
    if dry_run:
        run.difference.issued.clear()
    return run.difference


def _documents(document: Configuration) -> Sequence[Document]:
    if isinstance(document, Document):
        return [document]
    return [Document(document)] if isinstance(document, Mapping) else document


class _Run:
    """One apply: it collects problems and changes, and writes what is valid to check the rest."""

    def __init__(self, problems: Problems, prune: bool) -> None:
        self.problems = problems
        self.prune = prune
        self.difference = Difference()

    def list(self, link: Children, entries: list[Entry], parent: models.Model | None, path: str) -> None:
        """The objects of one list. Without a saved parent they are only checked."""
        known: dict[Any, Any] = {}
        if parent is not None or not link.parent:
            known = {link.kind.identity_of(row): row for row in link.kind.rows.of(parent, link)}
        if self.prune:
            self.remove(link, known, {entry.identity for entry in entries}, path)
        first: dict[Any, Entry] = {}
        for entry in entries:
            identity = entry.identity
            if identity is not None and first.setdefault(identity, entry) is not entry:
                earlier = first[identity].place
                self.problems.add(
                    entry.where(link.kind.identity),
                    f"{link.kind.identity_text(identity)!r} is given twice; the first is at {earlier}",
                )
                continue
            name = link.kind.identity_text(identity)
            self.entry(link, entry, known.get(identity), parent, f"{path}/{name}")

    def remove(self, link: Children, known: dict[Any, Any], named: set[Any], path: str) -> None:
        for identity in [identity for identity in known if identity not in named]:
            row = known.pop(identity)
            if (how := link.kind.rows.remove(row)) is not None:
                gone = f"{path}/{link.kind.identity_text(identity)}"
                self.difference.changes.append(Change("-", gone, remark=how))

    def entry(
        self, link: Children, entry: Entry, known: models.Model | None, parent: models.Model | None, path: str
    ) -> None:
        of_parent = {link.parent: parent} if parent is not None else {}
        row = known if known is not None else link.kind.rows.new(of_parent)
        changed = self.fill(row, entry)
        complete = parent is not None or not link.parent
        valid = self.check(row, link, entry, complete) and not entry.faulty and complete
        if valid and (known is None or changed):
            sign = "~" if known is not None else "+"
            self.difference.changes.append(
                Change(sign, path, tuple(changed.values()), self.remark(row, entry))
            )
            link.kind.rows.save(row, entry, changed, self.difference)
        elif valid and getattr(row, "revoked_at", None):
            self.difference.notes.append(
                f"{path} was revoked and stays so; give it another secret, or remove it"
            )
        for child in link.kind.children:
            parent_of_children = row if valid or known is not None else None
            self.list(child, entry.children.get(child.key, []), parent_of_children, f"{path}/{child.key}")

    def remark(self, row: models.Model, entry: Entry) -> str:
        made = entry.kind.word == "key" and row._state.adding and "secret" not in entry.values
        return "its secret is made now and printed once" if made else ""

    def fill(self, row: models.Model, entry: Entry) -> dict[str, tuple[str, str]]:
        """Set what differs; (key, text) of each change by attribute. A new row shows what the file gives."""
        rows, adding = entry.kind.rows, row._state.adding
        changed: dict[str, tuple[str, str]] = {}
        for field in entry.kind.fields:
            if field.name in entry.faulty or (field.kept and field.name not in entry.values):
                continue
            value = entry.wanted(field)
            if not rows.same(row, field, value):
                changed[field.name] = (field.key, self.change_text(row, entry, field, value))
                if field.name not in rows.relations:
                    setattr(row, field.name, value)
            if adding and (field.name not in entry.values or field.name == entry.kind.identity):
                changed.pop(field.name, None)
        return changed

    def change_text(self, row: models.Model, entry: Entry, field: Field, value: Any) -> str:
        rows = entry.kind.rows
        if field.secret:
            return secret_text(rows.keeps_secret(row), bool(value))
        if row._state.adding:
            return self.problems.redacted(value_text(value))
        return self.problems.redacted(f"{value_text(rows.current(row, field))} -> {value_text(value)}")

    def check(self, row: models.Model, link: Children, entry: Entry, complete: bool) -> bool:
        """Whether the row is valid; what is wrong with it is noted at its place in the file."""
        ours = {field.name for field in entry.kind.fields if not field.secret} - entry.faulty
        if complete:
            ours.add(link.parent)
        found: dict[str, str] = {}
        try:
            row.full_clean(exclude={field.name for field in row._meta.fields} - ours)
        except ValidationError as error:
            found = {name: " ".join(messages) for name, messages in error.message_dict.items()}
        found |= entry.kind.rows.problems(row, entry)
        found = {name: message for name, message in found.items() if name not in entry.faulty}
        # A value the file leaves out and that follows from another is wrong because that other one is.
        computed = {field.name for field in entry.kind.fields if field.default is not None}
        follows = computed - entry.places.keys()
        causes = [name for name in found if name not in follows]
        for name in causes if causes or entry.faulty else found:
            self.problems.add(entry.place if name == NON_FIELD_ERRORS else entry.where(name), found[name])
        return not found
