"""Conversion of YAML text to plain values, with the line of every key for error messages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from learnd.core.errors import Problem

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
Path = tuple[str | int, ...]
_YAML = "tag:yaml.org,2002:"
_PLAIN_TAGS = {f"{_YAML}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}
_KEY_TAGS = {*_PLAIN_TAGS, f"{_YAML}merge", f"{_YAML}value"}
_COLLECTION_TAGS = {f"{_YAML}map", f"{_YAML}seq"}
MAX_VALUES = 100_000
"""Limit on values per file. Nested aliases turn ten lines into billions of values; real files hold some hundred."""
_SECRET = re.compile(r"(password|token)$")
_ALL_SECRET = ("export", "upload", "options")
_REACTIONS = ("drift", "reactions")
"""All options of the upload are treated as secrets, because each store has secrets of its own."""


@dataclass(slots=True)
class Document:
    """Plain values, with the line (from 1) of every path into them and the problems found while reading."""

    file: str
    values: object = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    source_texts: dict[Path, str] = field(default_factory=dict)
    """Text of the file where a value came from the environment. Errors show this text and never the value."""

    def shown(self, path: Sequence[str | int], value: object) -> str:
        """Return *value* as an error may show it: neither secrets nor values from the environment are included."""
        if (text := self.source_texts.get(tuple(path))) is not None:
            return f"the value of {text}"
        return "the value" if is_secret(path) else repr(value)

    def line_of(self, path: Sequence[str | int]) -> int:
        """Return the line of *path*, or of its nearest ancestor that is in the file."""
        for end in range(len(path), -1, -1):
            if (line := self.lines.get(tuple(path[:end]))) is not None:
                return line
        return 1

    def problem(self, path: Sequence[str | int], message: str) -> Problem:
        """Return a problem at *path*, with file and line filled in."""
        return Problem(dotted(path), message, self.file, self.line_of(path))


def dotted(path: Sequence[str | int]) -> str:
    """Return *path* in its usual notation.

    >>> dotted(("source", "topics", 0))
    'source.topics[0]'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def is_secret(path: Sequence[str | int]) -> bool:
    """Return whether errors must not show the value at *path*, even if it is written in the file.

    >>> is_secret(("source", "sasl_password")), is_secret(("source", "sasl_password_file"))
    (True, False)
    >>> is_secret(("export", "upload", "options", "key")), is_secret(("drift", "reactions", 0, "url"))
    (True, True)
    """
    if tuple(path[:2]) == _REACTIONS and path[-1] == "url":
        return True
    return tuple(path[:3]) == _ALL_SECRET or any(_SECRET.search(str(part)) for part in path)


def parse(text: str, *, file: str, environ: Mapping[str, str]) -> Document:
    """Return the values in *text*, with ``${VAR}`` and ``${VAR:-default}`` expanded in its scalars.

    Variables are expanded after parsing, so their values can never become structure. These are problems: duplicate
    keys, tags (on keys and collections too), aliases that expand beyond `MAX_VALUES` or contain themselves, unset
    variables, and variables that hold a line break. The rest of the document is still read.

    >>> document = parse("port: ${PORT:-9464}", file="a.yaml", environ={})
    >>> document.values
    {'port': 9464}
    """
    document = Document(file)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            document.values = _NodeReader(document, environ, loader).value(node, ())
    except _TooLargeError as error:
        document.problems.append(Problem("", str(error), file, error.line))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        line_text = text.splitlines()[line - 1] if line <= len(text.splitlines()) else ""
        hint = '; inside {...} or [...] write "${VAR}" in quotes' if "${" in line_text else ""
        document.problems.append(Problem("", f"not YAML: {_without_names(str(error.problem))}{hint}", file, line))
    except RecursionError:
        document.problems.append(Problem("", "is nested too deeply; use fewer levels", file, 1))
    except yaml.YAMLError as error:
        document.problems.append(Problem("", f"not YAML: {type(error).__name__}: {error}", file, 1))
    finally:
        loader.dispose()
    return document


def _without_names(problem: str) -> str:
    """Return PyYAML's *problem* without the names of anchors: an unquoted password may be read as one.

    >>> _without_names("found undefined alias 'hunter2'")
    'found an alias that is not defined; text that starts with * needs quotes'
    """
    if "undefined alias" in problem:
        return "found an alias that is not defined; text that starts with * needs quotes"
    if "duplicate anchor" in problem:
        return "found an anchor that is defined twice; text that starts with & needs quotes"
    return problem


class _TooLargeError(Exception):
    """Raised when aliases expand the document beyond `MAX_VALUES`, or without end."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _NodeReader:
    """A reader that walks once over the nodes of a document."""

    def __init__(self, document: Document, environ: Mapping[str, str], loader: yaml.SafeLoader) -> None:
        self._document = document
        self._environ = environ
        self._loader: Any = loader  # its methods have no types
        self._value_count = 0
        self._open_collections: set[int] = set()
        """Identities of the collections around the node that is being read."""

    def value(self, node: yaml.Node, path: Path) -> object:
        """Return the plain value of *node*, whose place is *path*."""
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        self._value_count += 1
        line = node.start_mark.line + 1
        if self._value_count > MAX_VALUES:
            raise _TooLargeError(f"holds more than {MAX_VALUES} values; remove aliases (*name) of aliases", line)
        if not isinstance(node, yaml.CollectionNode):
            return self._scalar(node, path)
        if id(node) in self._open_collections:
            raise _TooLargeError("contains itself through an alias (*name); remove the alias", line)
        if node.tag not in _COLLECTION_TAGS:
            self._refuse_tag(node, path)
            return None
        self._open_collections.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        finally:
            self._open_collections.remove(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(path, f"has a key that is not text, on line {key_node.start_mark.line + 1}; use a name")
                continue
            key = str(key_node.value)
            at = (*path, key)
            first = self._document.lines.get(at)
            self._document.lines[at] = key_node.start_mark.line + 1
            if key_node.tag not in _KEY_TAGS:
                self._refuse_tag(key_node, at)
                continue
            if key in values:
                self._problem(at, f"appears twice; first on line {first}")
            else:
                values[key] = self.value(value_node, at)
        return values

    def _scalar(self, node: yaml.Node, path: Path) -> object:
        if node.tag not in _PLAIN_TAGS:
            self._refuse_tag(node, path)
            return None
        text = str(node.value)
        expanded = _VARIABLE.sub(lambda match: self._variable(match, path), text)
        if expanded != text:
            self._document.source_texts[path] = text
        tag = node.tag
        if expanded != text and getattr(node, "style", None) is None:
            tag = self._loader.resolve(yaml.ScalarNode, expanded, (True, False))
        try:
            return self._loader.construct_object(yaml.ScalarNode(tag, expanded, node.start_mark, node.end_mark))
        except (ValueError, yaml.YAMLError):
            kind = tag.removeprefix(_YAML)
            shown = self._document.shown(path, expanded)
            self._problem(path, f"{shown} is not a valid {kind}; if it is text, put it in quotes")
            return None

    def _refuse_tag(self, node: yaml.Node, path: Path) -> None:
        name = "a tag" if is_secret(path) else f"the tag {node.tag}"
        self._problem(path, f"{name} is not allowed; write the plain value, and put text that starts with ! in quotes")

    def _variable(self, match: re.Match[str], path: Path) -> str:
        name, default = match.group(1), match.group(2)
        value = self._environ.get(name, default)
        if value is None:
            self._problem(path, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
            return ""
        if value.splitlines() not in ([], [value]):  # YAML also breaks lines at U+0085, U+2028 and others
            self._problem(path, f"the environment variable {name} holds a line break; a value must be one line")
            return ""
        return str(value)

    def _problem(self, path: Path, message: str) -> None:
        self._document.problems.append(self._document.problem(path, message))
