"""Translation of pydantic's errors: with their line in the file, in the terms of the configuration, with a fix."""

from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from learnd.config.settings import Settings
from learnd.config.yaml_document import Document, Path, is_secret
from learnd.core.errors import Problem
from learnd.core.names import nearest, suggestion

_NOT_A_SECTION = ("model_attributes_type", "model_type", "dict_type", "mapping_type")
_DEEPEST, _MOST_PLACES = 3, 3


def translate(details: ErrorDetails, document: Document) -> Problem:
    """Return one pydantic error as a problem: its path without union tags, and a message that says what to do."""
    location = details["loc"]
    path, context = _written_path(location, document.values), details.get("ctx", {})
    kind = details["type"]
    if kind == "extra_forbidden":
        message = _unknown_key(location, path)
    elif kind == "missing":
        message = _missing_key(location, path)
    elif kind == "union_tag_not_found":
        message = f"needs {context['discriminator']}: one of {', '.join(_tags_at(path))}"
    elif kind == "union_tag_invalid":
        tags = _tags_at(path)
        path = (*path, str(context["discriminator"]).strip("'"))
        shown = document.shown(path, context["tag"])
        message = f"{shown} is not one of {', '.join(tags)}{suggestion(str(context['tag']), tags)}"
    elif kind in _NOT_A_SECTION and (section := _models_at(location)):
        message = _not_a_section(path, details["input"], section, document)
    elif kind == "value_error":
        message = str(context["error"])
    elif is_secret(path) and path[0] == "export":
        message = "must be a mapping from names to text or numbers"
    elif is_secret(path):
        message = 'must be text; put the value in quotes, as in "${VARIABLE}"'
    else:
        value = details["input"]
        shown = "" if isinstance(value, dict | list) else f", not {document.shown(path, value)}"
        message = details["msg"].removeprefix("Input ").replace("String ", "") + shown
    return document.problem(path, message)


def _unknown_key(location: Path, path: Path) -> str:
    model = _parent(location)
    keys = sorted(model.model_fields) if model is not None else []
    name = str(path[-1])
    hint = _other_kind(location) or _elsewhere(name) or suggestion(name, keys)
    known = f"; the known keys are {', '.join(keys)}"
    return f"unknown key{hint or known}"


def _elsewhere(name: str) -> str:
    """Return a hint that names the places of the key *name* in other sections, if there are few; else nothing."""
    places = sorted(
        {place for place in _places(Settings, ()) if place[-1] == name}, key=lambda place: (len(place), place)
    )
    if not 0 < len(places) <= _MOST_PLACES:
        return ""
    return f"; did you mean {' or '.join('.'.join(place) for place in places)}?"


def _places(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key below *model*."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        if len(above) < _DEEPEST:
            for inner in _models_in(field.annotation):
                yield from _places(inner, (*above, name))


def _not_a_section(path: Path, value: object, models: Sequence[type[BaseModel]], document: Document) -> str:
    """Return how to write a section where a plain value, or a list, is written."""
    name = str(path[-1]) if path else ""
    tags = [str(tag) for model in models if (tag := _tag_of(model))]
    if not tags:
        return f"must be a section with the keys {', '.join(sorted(models[0].model_fields))}"
    key = "mode" if "mode" in models[0].model_fields else "kind"
    if isinstance(value, str) and (chosen := nearest(value, tags, count=1)):
        return f"must be a section; write {name}: {{{key}: {chosen[0]}}}"
    shown = "" if isinstance(value, dict | list) else f", not {document.shown(path, value)}"
    return f"must be a section such as {name}: {{{key}: {tags[0]}}}{shown}; {key} is one of {', '.join(tags)}"


def _models_at(location: Sequence[str | int]) -> list[type[BaseModel]]:
    """Return the settings classes that the key at *location* may hold; empty if they cannot be told."""
    annotation: object = Settings
    for part in location:
        models = _models_in(annotation)
        tagged = [model for model in models if _tag_of(model) == part and len(models) > 1]
        if tagged:
            annotation = tagged[0]
        elif len(models) == 1 and part in models[0].model_fields:
            annotation = models[0].model_fields[str(part)].annotation
        else:
            return []
    return _models_in(annotation)


def _missing_key(location: Path, path: Path) -> str:
    model = _parent(location)
    field = model.model_fields.get(str(path[-1])) if model is not None else None
    if field is not None and (kinds := _tags(field.annotation)):
        return f"is missing; give it a kind: {', '.join(kinds)}"
    return "is missing"


def _other_kind(location: Path) -> str:
    """Return a hint if the unknown key at *location* belongs to another kind of the same section, else nothing."""
    annotation = Settings.model_fields[str(location[0])].annotation if location[0] in Settings.model_fields else None
    owners = [model for model in _models_in(annotation) if len(location) == 3 and location[-1] in model.model_fields]
    if not owners:
        return ""
    tag = "mode" if "mode" in owners[0].model_fields else "kind"
    return f"; it belongs to {tag}: {' or '.join(str(_tag_of(model)) for model in owners)}"


def _models_in(annotation: object) -> list[type[BaseModel]]:
    """Return every settings class inside *annotation* (unions, Annotated, dict values)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _tag_of(model: type[BaseModel]) -> str | None:
    """Return the value of ``kind`` or ``mode`` that selects *model*; None if it has neither."""
    for name in ("kind", "mode"):
        if name in model.model_fields and (values := get_args(model.model_fields[name].annotation)):
            return str(values[0])
    return None


def _tags(annotation: object) -> list[str]:
    return [tag for model in _models_in(annotation) if (tag := _tag_of(model))]


def _tags_at(path: Path) -> list[str]:
    return _tags(Settings.model_fields[str(path[0])].annotation)


def _written_path(location: Sequence[str | int], values: object) -> Path:
    """Return pydantic's *location* without its union tags, which are not keys of the file."""
    path: list[str | int] = []
    annotation: object = Settings
    for i, part in enumerate(location):
        if path and not isinstance(values, dict | list):
            break  # the rest names a member of a union of plain values
        models = _models_in(annotation)
        if tagged := [model for model in models if len(models) > 1 and _tag_of(model) == part]:
            annotation = tagged[0]
            continue
        if isinstance(values, dict) and part not in values and i < len(location) - 1:
            continue
        path.append(part)
        fields = models[0].model_fields if len(models) == 1 else {}
        annotation = fields[str(part)].annotation if part in fields else None
        values = _child(values, part)
    return tuple(path)


def _child(values: object, part: str | int) -> object:
    """Return what stands under *part* in a mapping or a list; an empty mapping if nothing does."""
    if isinstance(values, dict):
        return values.get(part, {})
    if isinstance(values, list) and isinstance(part, int) and part < len(values):
        return values[part]
    return {}


def _parent(location: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the settings class that the last key of *location* would belong to."""
    annotation: object = Settings
    for part in location[:-1]:
        models = _models_in(annotation)
        if tagged := [model for model in models if _tag_of(model) == part]:
            annotation = tagged[0]
        elif len(models) == 1 and part in models[0].model_fields:
            annotation = models[0].model_fields[str(part)].annotation
    models = _models_in(annotation)
    return models[0] if len(models) == 1 else None
