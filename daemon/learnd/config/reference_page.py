"""The page `daemon/docs/configuration.md`: a hand-written introduction, then every key, from the JSON Schema."""

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

SECTIONS = (
    *("name", "data_dir", "seed", "source", "decode", "features", "target", "task", "model", "scaling", "learning"),
    *("truth", "averaging", "checkpoint", "export", "dead_letter", "predictions", "intervals", "alarms", "alarm_sink"),
    *("drift", "http"),
)
"""All sections, in the order in which data flows through them."""
_SECTION = "section"
_INTRO = "reference_intro.md"
"""Written by hand; the reference follows it."""


class _Row(NamedTuple):
    """One row of a table: a key of one kind of a section."""

    key: str
    type: str
    default: str
    meaning: str


def markdown(schema: Schema) -> str:
    """Return the page for the configuration that `learnd.config.loader.json_schema` describes."""
    properties, definitions = schema["properties"], schema["$defs"]
    assert sorted(SECTIONS) == sorted(properties)
    rows = [_row(name, properties[name], required=name in schema["required"]) for name in SECTIONS]
    linked = [row._replace(type=f"[{row.type}](#{row.key})" if row.type == _SECTION else row.type) for row in rows]
    parts = [_introduction(), *_table([("", linked)])]
    for row in rows:
        if row.type != _SECTION:
            continue
        kinds = [definitions[name] for name in _sections_in(properties[row.key])]
        parts += [f"### {row.key}\n", f"{row.meaning}\n"]
        if len(kinds) > 1:
            parts += [*map(_kind_line, kinds), ""]
        elif row.key == "features":
            parts.append("A list of names, or a mapping of names to these options. Limits apply to each key:\n")
        parts += _table([(_discriminator(kind)[1], list(_rows(kind, definitions))) for kind in kinds])
        for key, value in kinds[0]["properties"].items():
            parts += _list_of_kinds(f"{row.key}.{key}", value, definitions)
    return "\n".join(parts).rstrip() + "\n"


def _list_of_kinds(path: str, value: Schema, definitions: Schema) -> list[str]:
    """Return the part of the page for a list whose items have several kinds; nothing for any other key."""
    kinds = [definitions[name] for name in _sections_in(value.get("items", {}))]
    if len(kinds) < 2:
        return []
    rows = [(_discriminator(kind)[1], list(_rows(kind, definitions))) for kind in kinds]
    return [f"#### {path}\n", *map(_kind_line, kinds), "", *_table(rows)]


def _introduction() -> str:
    """Return the hand-written part of the page: how a configuration is read, and examples."""
    return resources.files("learnd.config").joinpath(_INTRO).read_text(encoding="utf-8")


def _kind_line(definition: Schema) -> str:
    key, kind = _discriminator(definition)
    default = "" if key in definition["required"] else " (the default)"
    return f"- `{key}: {kind}`{default}: {_meaning(definition)}"


def _discriminator(definition: Schema) -> tuple[str, str]:
    """Return the key that selects the kind of a section, and its value here; both are empty if there is one kind."""
    for key, value in definition["properties"].items():
        if "const" in value:
            return key, str(value["const"])
    return "", ""


def _table(kinds: list[tuple[str, list[_Row]]]) -> list[str]:
    """Return a table with one line per distinct row and the kinds that have it, in the order of first appearance."""
    for_kinds: dict[_Row, list[str]] = {}
    for kind, rows in kinds:
        for row in rows:
            for_kinds.setdefault(row, []).append(kind)
    if not for_kinds:
        return []
    several = len(kinds) > 1
    title = ["key", *(["for"] if several else []), "value", "default", "meaning"]
    lines = [f"| {' | '.join(title)} |", f"|{'---|' * len(title)}"]
    for row, names in for_kinds.items():
        kind_cell = ["all" if len(names) == len(kinds) else ", ".join(names)] if several else []
        cells = [f"`{row.key}`", *kind_cell, row.type, row.default, row.meaning]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _rows(definition: Schema, definitions: Schema, prefix: str = "") -> Iterator[_Row]:
    """Yield every key of a section; keys of nested sections are named by their paths."""
    for key, value in definition["properties"].items():
        if "const" in value or value.get("type") == "null":
            continue
        yield _row(f"{prefix}{key}", value, required=key in definition.get("required", ()))
        for name in _sections_in(value):
            yield from _rows(definitions[name], definitions, f"{prefix}{key}.")
        of_items = _sections_in(value.get("items", {}))
        for name in of_items if len(of_items) == 1 else ():  # several kinds have a table of their own
            yield from _rows(definitions[name], definitions, f"{prefix}{key}[].")


def _row(path: str, value: Schema, *, required: bool) -> _Row:
    default = value.get("default")
    if required:
        default_cell = "required"
    else:
        default_cell = "absent" if default is None else "" if _is_section(default) else f"`{json.dumps(default)}`"
    type_cell = _SECTION if _sections_in(value) else _type(value)
    if _sections_in(value.get("items", {})):
        type_cell = "list of sections"
    if default is None:
        type_cell = type_cell.removesuffix(" or `null`")  # null is the same as leaving the key out
    return _Row(path, type_cell, default_cell, _meaning(value))


def _is_section(default: object) -> bool:
    return isinstance(default, dict) or (isinstance(default, list) and any(isinstance(item, dict) for item in default))


def _sections_in(value: Schema) -> list[str]:
    """Return the names of the sections that *value* may be; for a mapping, those that its values may be."""
    names = [value["$ref"].rpartition("/")[2]] if "$ref" in value else []
    for choice in (*value.get("anyOf", ()), *value.get("oneOf", ()), *value.get("allOf", ())):
        names += _sections_in(choice)
    if isinstance(value.get("additionalProperties"), dict):
        names += _sections_in(value["additionalProperties"])
    return names


def _meaning(value: Schema) -> str:
    """Return the description in one line of Markdown."""
    return " ".join(value.get("description", "").split()).replace("|", "\\|").replace("``", "`")


def _type(value: Schema) -> str:
    """Return the allowed values in words.

    >>> _type({"type": "array", "items": {"type": "integer", "minimum": 1}})
    'list of integers >= 1'
    >>> _type({"anyOf": [{"exclusiveMinimum": 0, "type": "number"}, {"type": "null"}]})
    'number > 0 or `null`'
    """
    choices = value.get("anyOf") or value.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_type(choice) for choice in choices))
    if "enum" in value:
        return ", ".join(f"`{name}`" for name in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type", "anything")
    if kind == "array":
        return f"list of {_plural(value.get('items', {}))}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"mapping to {_plural(inner)}" if isinstance(inner, dict) else "mapping"
    words = {"string": "text", "null": "`null`", "boolean": "`true`, `false`"}.get(kind, kind)
    words = {"path": "path", "date-time": "timestamp", "password": "secret text"}.get(value.get("format", ""), words)
    return f"{words}{_bounds(value)}"


def _plural(value: Schema) -> str:
    """Return the allowed values of many items in words.

    >>> _plural({"type": "string"}), _plural({"type": "number", "minimum": 0}), _plural({"enum": ["a", "b"]})
    ('texts', 'numbers >= 0', '`a`, `b`')
    """
    words = _type(value)
    first, space, rest = words.partition(" ")
    return f"{first}s{space}{rest}" if first in ("text", "integer", "number", "path") else words


def _bounds(value: Schema) -> str:
    names = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[name]:g}" for name, sign in names.items() if name in value]
    return f" {', '.join(bounds)}" if bounds else ""
