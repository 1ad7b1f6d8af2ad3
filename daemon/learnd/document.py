"""YAML text to plain values, remembering the line of every key, so that an error can say where."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from learnd.errors import Problem

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
Path = tuple[str | int, ...]
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}


@dataclass(slots=True)
class Document:
    """Plain values, with the line (from 1) of every path into them and what was wrong on the way."""

    file: str
    values: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, path: Sequence[str | int]) -> int:
        """The line of *path*, or of its nearest ancestor that is written down."""
        for end in range(len(path), -1, -1):
            if (line := self.lines.get(tuple(path[:end]))) is not None:
                return line
        return 1

    def problem(self, path: Sequence[str | int], message: str) -> Problem:
        """A problem at *path*, with file and line filled in."""
        return Problem(dotted(path), message, self.file, self.line_of(path))


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it.

    >>> dotted(("source", "topics", 0))
    'source.topics[0]'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def parse(text: str, *, file: str, environ: Mapping[str, str]) -> Document:
    """Everything that *text* says, with ``${VAR}`` and ``${VAR:-default}`` expanded in its scalars.

    Expansion happens after parsing, so that a value can never become structure. Duplicate keys, custom tags,
    unset variables and variables that hold a line break are problems; the rest is read all the same.

    >>> document = parse("port: ${PORT:-9464}", file="a.yaml", environ={})
    >>> document.values
    {'port': 9464}
    """
    document = Document(file)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            document.values = _Reading(document, environ, loader).value(node, ())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        written = text.splitlines()[line - 1] if line <= len(text.splitlines()) else ""
        hint = '; inside {...} or [...] write "${VAR}" in quotes' if "${" in written else ""
        document.problems.append(Problem("", f"not YAML: {error.problem}{hint}", file, line))
    except (yaml.YAMLError, RecursionError) as error:
        document.problems.append(Problem("", f"not YAML: {type(error).__name__}: {error}", file, 1))
    finally:
        loader.dispose()
    return document


class _Reading:
    """One walk over the nodes of a document."""

    def __init__(self, document: Document, environ: Mapping[str, str], loader: yaml.SafeLoader) -> None:
        self._document = document
        self._environ = environ
        self._loader: Any = loader

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The plain value of *node*, which stands at *path*."""
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            at = (*path, key)
            first = self._document.lines.get(at)
            self._document.lines[at] = key_node.start_mark.line + 1
            if key in values:
                self._problem(at, f"stands twice; first on line {first}")
            else:
                values[key] = self.value(value_node, at)
        return values

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if node.tag not in _PLAIN_TAGS:
            self._problem(path, f"the tag {node.tag} is not allowed; write the value")
            return None
        text = str(node.value)
        expanded = _VARIABLE.sub(lambda match: self._variable(match, path), text)
        tag = node.tag
        if expanded != text and getattr(node, "style", None) is None:
            tag = self._loader.resolve(yaml.ScalarNode, expanded, (True, False))
        try:
            return self._loader.construct_object(yaml.ScalarNode(tag, expanded, node.start_mark, node.end_mark))
        except (ValueError, yaml.YAMLError) as error:
            self._problem(path, f"{expanded!r} cannot be read: {error}")
            return None

    def _variable(self, match: re.Match[str], path: Path) -> str:
        name, default = match.group(1), match.group(2)
        value = self._environ.get(name, default)
        if value is None:
            self._problem(path, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
            return ""
        if "\n" in value or "\r" in value:
            self._problem(path, f"the environment variable {name} holds a line break; a value must be one line")
            return ""
        return str(value)

    def _problem(self, path: Path, message: str) -> None:
        self._document.problems.append(self._document.problem(path, message))
