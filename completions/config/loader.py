"""YAML to a Document: plain values, the line of every one of them, and secrets filled in.

PyYAML's safe loader builds the nodes; this walks them: a finished dict has no lines and no duplicate keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from completions.config.problems import Path, Place, Problems
from completions.config.substitution import Refused, Substituted, substitute

NODES_CAP = 100_000  # aliases of aliases can make a small file huge
MERGE_TAG = "tag:yaml.org,2002:merge"
SCALAR_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}
COLLECTION_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


class Exact(float):
    """A number as the file wrote it: prices are read from the text, not from the binary fraction."""

    text: str

    def __new__(cls, value: float, text: str) -> "Exact":
        made = super().__new__(cls, value)
        made.text = text
        return made


@dataclass(frozen=True)
class Document:
    """A configuration as plain values. `lines` has the line of each path; `source` is the file's name."""

    data: Any
    source: str = ""
    lines: Mapping[Path, int] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(
        default_factory=dict, repr=False
    )  # substituted value -> its expression
    problems: Problems = field(default_factory=Problems)

    def place(self, path: Path) -> Place:
        line = next(
            (self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines), 0
        )
        return Place(self.source, line, path)


def load(text: str, source: str, folder: FilePath) -> Document:
    """The document in `text`. Faults are in its `problems`, with their lines; `apply_config` raises them."""
    return _Walk(source, folder).document(text)


class _Walk:
    def __init__(self, source: str, folder: FilePath) -> None:
        self.source = source
        self.folder = folder
        self.problems = Problems()
        self.lines: dict[Path, int] = {}
        self.secrets: dict[str, str] = {}
        self.flattened: set[int] = set()
        self.nodes = 0

    def document(self, text: str) -> Document:
        data: Any = None
        try:
            self.loader = yaml.SafeLoader(text)
            node = self.loader.get_single_node()
            data = self.build(node, (), ()) if node is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.refuse(mark.line + 1 if mark else 0, (), f"not valid YAML: {error.problem or error.context}")
        except yaml.reader.ReaderError as error:
            self.refuse(0, (), f"not valid YAML: {error.reason} at character {error.position}")
        else:
            if node is None:
                self.refuse(1, (), "the file is empty; it holds at least one section, e.g. 'providers:'")
        return Document(data, self.source, self.lines, self.secrets, self.problems)

    def refuse(self, line: int, path: Path, message: str) -> None:
        self.problems.add(Place(self.source, line, path), message)

    def build(self, node: yaml.Node, path: Path, above: tuple[int, ...]) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.nodes += 1
        if id(node) in above or self.nodes > NODES_CAP:
            raise yaml.MarkedYAMLError(
                problem="an alias repeats itself without end", problem_mark=node.start_mark
            )
        if node.tag not in SCALAR_TAGS | COLLECTION_TAGS:
            self.refuse(line, path, f"the tag {node.tag} is not allowed; write plain values")
            return UNUSABLE
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, (*above, id(node)))
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i), (*above, id(node))) for i, item in enumerate(node.value)]
        return self.scalar(node, path, line)

    def mapping(self, node: yaml.MappingNode, path: Path, above: tuple[int, ...]) -> dict[str, Any]:
        if id(node) not in self.flattened:
            self.flattened.add(id(node))
            self.refuse_duplicates(node, path)
            self.loader.flatten_mapping(node)  # '<<: *alias'; own keys come last and win
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if key_node.tag != "tag:yaml.org,2002:str":
                self.refuse(line, path, f"{key!r} is not a name; put it in quotes if it is meant as one")
                continue
            self.lines[(*path, key)] = line
            made[key] = self.build(value_node, (*path, key), above)
        return made

    def refuse_duplicates(self, node: yaml.MappingNode, path: Path) -> None:
        first: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key_node.tag != MERGE_TAG and first.setdefault(key, line) != line:
                self.refuse(line, (*path, key), f"given twice; the first is in line {first[key]}")

    def scalar(self, node: yaml.Node, path: Path, line: int) -> Any:
        if not node.tag.endswith(":str"):
            try:
                value = self.loader.construct_object(node)
            except (ValueError, OverflowError) as error:
                self.refuse(line, path, f"{node.value!r} is not a valid value: {error}")
                return UNUSABLE
            return Exact(value, node.value) if isinstance(value, float) else value
        try:
            text = substitute(node.value, self.folder)
        except Refused as error:
            self.refuse(line, path, str(error))
            return UNUSABLE
        if isinstance(text, Substituted):
            self.secrets[str(text)] = text.expression
        return text


class _Unusable:
    """Stands where a value was already refused, so that it is not reported a second time."""

    def __repr__(self) -> str:
        return "(unusable)"


UNUSABLE = _Unusable()


def usable(value: Any) -> bool:
    """Whether nothing inside `value` was refused while the file was read."""
    if isinstance(value, dict):
        return all(usable(item) for item in value.values())
    if isinstance(value, list):
        return all(usable(item) for item in value)
    return value is not UNUSABLE
