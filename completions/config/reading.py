"""A document to entries: what may stand where is the schema's word; every fault is noted with its place."""

from typing import Any

from completions.config.loader import UNUSABLE, Document, usable
from completions.config.problems import Path, Problems
from completions.config.readers import did_you_mean, shown
from completions.config.shape import Children, Entry, Kind
from completions.config.substitution import Refused

Sections = dict[str, list[Entry]]


def read(document: Document, sections: tuple[Children, ...], problems: Problems) -> Sections:
    """The entries of every section the document has. A section it lacks is absent here too."""
    return _Reading(document, problems).sections(sections)


class _Reading:
    def __init__(self, document: Document, problems: Problems) -> None:
        self.document = document
        self.problems = problems

    def refuse(self, path: Path, message: str) -> None:
        self.problems.add(self.document.place(path), message)

    def sections(self, allowed: tuple[Children, ...]) -> Sections:
        data = self.document.data
        if not isinstance(data, dict):
            if not self.document.problems.found:
                self.refuse((), f"expected sections, e.g. 'providers:', got {shown(data)}")
            return {}
        self.unknown(data, [section.key for section in allowed], ())
        return {
            section.key: self.entries(section, data[section.key], (section.key,))[0]
            for section in allowed
            if section.key in data
        }

    def unknown(self, raw: dict[str, Any], allowed: list[str], path: Path) -> None:
        for key in [key for key in raw if key not in allowed]:
            hint = did_you_mean(key, allowed) or "."
            self.refuse((*path, key), f"unknown key{hint} Allowed here: {', '.join(allowed)}")

    def entries(self, child: Children, raw: Any, path: Path) -> tuple[list[Entry], bool]:
        """The entries of a list, and whether all of it could be read."""
        if child.single and isinstance(raw, dict):
            return [self.entry(child.kind, raw, path)], True
        if not isinstance(raw, list):
            if raw is not UNUSABLE:
                self.refuse(path, f"expected a list, got {shown(raw)}; write [] for none")
            return [], False
        made = [self.entry(child.kind, item, (*path, i)) for i, item in enumerate(raw)]
        return made, all(entry.identity is not None for entry in made)

    def entry(self, kind: Kind, raw: Any, path: Path) -> Entry:
        entry = Entry(kind, self.document.place(path))
        if kind.shorthand and isinstance(raw, str):
            raw = {kind.shorthand: raw}
        if not isinstance(raw, dict):
            if raw is not UNUSABLE:
                plain = f" or just its {kind.shorthand}" if kind.shorthand else ""
                self.refuse(path, f"expected a {kind.word} as a mapping{plain}, got {shown(raw)}")
            entry.faulty.add(kind.identity)
            return entry
        self.unknown(raw, kind.keys(), path)
        self.fields(entry, self.flat(kind, raw, path), path)
        for child in kind.children:
            if child.key in raw:
                entry.places[child.key] = self.document.place((*path, child.key))
            entry.children[child.key], whole = self.entries(child, raw.get(child.key, []), (*path, child.key))
            if not whole:
                entry.faulty.add(child.key)
        return entry

    def flat(self, kind: Kind, raw: dict[str, Any], path: Path) -> dict[Path, Any]:
        """Values by their path inside the object, mappings such as `timeouts` opened."""
        flat: dict[Path, Any] = {}
        groups: dict[str, list[str]] = {}
        for field in kind.fields:
            if len(field.path) > 1:
                groups.setdefault(field.path[0], []).append(field.path[1])
        for key, value in raw.items():
            if key not in groups:
                flat[(key,)] = value
            elif isinstance(value, dict):
                self.unknown(value, groups[key], (*path, key))
                flat |= {(key, inner): item for inner, item in value.items()}
            elif value is not UNUSABLE:
                self.refuse(
                    (*path, key), f"expected a mapping of {', '.join(groups[key])}, got {shown(value)}"
                )
        return flat

    def fields(self, entry: Entry, flat: dict[Path, Any], path: Path) -> None:
        for field in entry.kind.fields:
            where = (*path, *field.path)
            if field.path not in flat:
                if field.required:
                    entry.faulty.add(field.name)
                    self.refuse(where, f"missing: every {entry.kind.word} needs it")
                continue
            value = flat[field.path]
            entry.places[field.name] = self.document.place(where)
            if not usable(value):
                entry.faulty.add(field.name)
                continue
            if field.secret and isinstance(value, str):
                self.problems.keep_secret({value: "***"})
            try:
                entry.values[field.name] = field.read(value)
            except Refused as error:
                entry.faulty.add(field.name)
                self.refuse(where, str(error))
        identity = entry.kind.field(entry.kind.identity)
        if identity.name not in entry.faulty and identity.default is not None:
            entry.values.setdefault(identity.name, identity.default(entry))
