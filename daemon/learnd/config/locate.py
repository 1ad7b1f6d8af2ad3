"""Places in the file of problems that are found after it was read, such as while the parts are built."""

import re
from dataclasses import replace
from pathlib import Path

from learnd.config.settings import Settings
from learnd.config.yaml_document import Document, dotted, parse
from learnd.core.errors import ConfigError, Problem

_WITH_PATH = re.compile(r"([a-z_]+(?:\.\w+|\[\d+\])*): (.+)", re.DOTALL)
_OF_FIELDS = ("features", "target", "decode", "learning", "alarms")
"""Sections that name fields of the records."""


def located(error: ConfigError, file: Path) -> ConfigError:
    """Return *error* with the file and the line of each problem that lacks them.

    A problem about a field of the records is reported where the field is named.
    """
    try:
        document = parse(file.read_text(encoding="utf-8"), file=str(file), environ={})
    except (OSError, ValueError):
        return error
    return ConfigError(*(problem if problem.file else _located(problem, document) for problem in error.problems))


def _located(problem: Problem, document: Document) -> Problem:
    path, message = problem.path, problem.message
    if problem.field and (named := where_named(document, problem.field)):
        return Problem(dotted(named), message, document.file, document.line_of(named), problem.field)
    if not path and (match := _WITH_PATH.match(message)) and _is_key(match[1]):
        path, message = match[1], match[2]
    keys = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
    return replace(problem, path=path, message=message, file=document.file, line=document.line_of(keys))


def _is_key(path: str) -> bool:
    return re.split(r"[.\[]", path)[0] in Settings.model_fields


def where_named(document: Document, field: str) -> tuple[str | int, ...]:
    """Return the path in *document* of the first key or value that is the name *field*; empty if there is none.

    >>> where_named(parse("features: [a, b]\\ntarget: y", file="", environ={}), "b")
    ('features', 1)
    """
    for path in sorted(document.lines, key=lambda path: (document.lines[path], len(path))):
        if path and path[0] in _OF_FIELDS and (path[-1] == field or _value_at(document.values, path) == field):
            return path
    return ()


def _value_at(values: object, path: tuple[str | int, ...]) -> object:
    for part in path:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values
