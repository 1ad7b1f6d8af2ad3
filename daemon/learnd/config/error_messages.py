"""Pydantic's errors as problems: where they stand in the file, in the words of the configuration, with the way out."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from learnd.config.settings import Settings
from learnd.config.yaml_document import Document, is_secret
from learnd.core.errors import Problem


def translate(details: Any, document: Document) -> Problem:
    """One pydantic error as a problem: the union tags taken out of its path, its message with a way out."""
    path, model = _written_path(details["loc"], document.values), _holder(details["loc"])
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = sorted(model.model_fields) if model is not None else []
        hint = _elsewhere(details["loc"]) or suggestion(str(path[-1]), known) or f"; known here: {', '.join(known)}"
        message = f"unknown key{hint}"
    elif kind == "missing":
        message = "is missing"
        field = model.model_fields.get(str(path[-1])) if model is not None else None
        if field is not None and (kinds := _tags(field.annotation)):
            message += f"; give it a kind: {', '.join(kinds)}"
    elif kind == "union_tag_not_found":
        message = f"needs {context['discriminator']}: one of {', '.join(_tags_at(path))}"
    elif kind == "union_tag_invalid":
        tags = _tags_at(path)
        path = (*path, str(context["discriminator"]).strip("'"))
        shown = document.shown(path, context["tag"])
        message = f"{shown} is not one of {', '.join(tags)}{suggestion(str(context['tag']), tags)}"
    elif kind == "value_error":
        message = str(context["error"])
    elif is_secret(path) and path[0] == "export":
        message = "must hold names, each with a text or a number"
    elif is_secret(path):
        message = 'must be text; put it in quotes, "${VARIABLE}" too'
    else:
        got = details["input"]
        shown = "" if isinstance(got, dict | list) else f", not {document.shown(path, got)}"
        message = details["msg"].removeprefix("Input ").replace("String ", "") + shown
    return document.problem(path, message)


def _elsewhere(location: Sequence[str | int]) -> str:
    """Of which other kind of the section the unknown key at *location* is one, if of any."""
    annotation = Settings.model_fields[str(location[0])].annotation if location[0] in Settings.model_fields else None
    homes = [model for model in _models_of(annotation) if len(location) == 3 and location[-1] in model.model_fields]
    if not homes:
        return ""
    tag = "mode" if "mode" in homes[0].model_fields else "kind"
    return f"; it belongs to {tag}: {' or '.join(str(_tag_of(model)) for model in homes)}"


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    """Every settings class inside *annotation* (unions, Annotated, dict values)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_of(argument)]


def _tag_of(model: type[BaseModel]) -> str | None:
    for name in ("kind", "mode"):
        if name in model.model_fields and (values := get_args(model.model_fields[name].annotation)):
            return str(values[0])
    return None


def _tags(annotation: Any) -> list[str]:
    return [tag for model in _models_of(annotation) if (tag := _tag_of(model))]


def _tags_at(path: Sequence[str | int]) -> list[str]:
    return _tags(Settings.model_fields[str(path[0])].annotation)


def _written_path(location: Sequence[str | int], values: Any) -> tuple[str | int, ...]:
    """Pydantic's *location* without the union tags in it, which nobody wrote as a key."""
    path: list[str | int] = []
    annotation: Any = Settings
    for i, part in enumerate(location):
        if path and not isinstance(values, dict | list):
            break  # what follows names a branch of a union of plain values
        models = _models_of(annotation)
        if tagged := [model for model in models if len(models) > 1 and _tag_of(model) == part]:
            annotation = tagged[0]
            continue
        if isinstance(values, dict) and part not in values and i < len(location) - 1:
            continue
        path.append(part)
        fields = models[0].model_fields if len(models) == 1 else {}
        annotation = fields[str(part)].annotation if part in fields else None
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            values = {}
    return tuple(path)


def _holder(location: Sequence[str | int]) -> type[BaseModel] | None:
    """The settings class that holds the last key of *location*."""
    annotation: Any = Settings
    for part in location[:-1]:
        models = _models_of(annotation)
        if tagged := [model for model in models if _tag_of(model) == part]:
            annotation = tagged[0]
        elif len(models) == 1 and part in models[0].model_fields:
            annotation = models[0].model_fields[str(part)].annotation
    models = _models_of(annotation)
    return models[0] if len(models) == 1 else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """A word on which of *known* may be meant by *name*; empty where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
