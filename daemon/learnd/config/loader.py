"""Loading of the configuration: YAML to frozen settings. All errors are reported at once, each with its line."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from learnd.config.cross_checks import contradictions
from learnd.config.error_messages import translate
from learnd.config.settings import Settings
from learnd.config.yaml_document import Document, parse
from learnd.core.errors import ConfigError, Problem
from learnd.core.settings_base import kinds_of
from learnd.learners.settings import SINGLE_OPTIONS
from learnd.models.settings import AnyModel
from learnd.tasks.settings import AnyTask

_DEFAULT_KINDS = (
    ("task", "kind", "regression"),
    ("averaging", "kind", "window"),
    ("decode", "kind", "json"),
)
"""Section, key and kind that is assumed where a section does not name its kind."""


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings in the YAML file at *path*.

    Raises
    ------
    ConfigError
        if anything is wrong; it holds every problem in the file, each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            Problem("", f"cannot be read ({error}); `learnd init` writes an example configuration", str(path))
        ) from error
    return loads(text, file=str(path), environ=os.environ if environ is None else environ)


def loads(text: str, *, file: str = "<configuration>", environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings in YAML *text*; see `load`."""
    return _settings(parse(text, file=file, environ=environ or {}))


def from_values(values: Mapping[str, Any]) -> Settings:
    """Return the settings in *values*, which are what a YAML file would hold; see `load`.

    Nested sections are dicts. Nothing is expanded: ``${VAR}`` is plain text. Problems name no file and no line.
    """
    try:
        return _settings(Document("", dict(values)))
    except ConfigError as error:
        raise ConfigError(*(replace(problem, line=0) for problem in error.problems)) from None


def _settings(document: Document) -> Settings:
    values, file = document.values, document.file
    if not isinstance(values, dict):
        problems = document.problems or [Problem("", "must be a mapping of keys to values; see `learnd init`", file, 1)]
        raise ConfigError(*problems)
    unreadable = {problem.path for problem in document.problems}
    values = {**values}
    source = values.get("source")  # if it is missing, report that, and not a missing decoder
    values.setdefault("decode", {"kind": default_decoder(source) if isinstance(source, dict) else "json"})
    for section, key, default in _DEFAULT_KINDS:
        if isinstance(values.get(section), dict):
            values[section] = {key: default, **values[section]}
    _name_kind_of_model(values)
    _name_mode_of_learning(values)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        invalid = [translate(details, document) for details in error.errors()]
        raise ConfigError(*document.problems, *(p for p in invalid if p.path not in unreadable)) from None
    problems = [
        *document.problems,
        *(document.problem(at, message) for at, message in contradictions(settings)),
    ]
    if problems:
        raise ConfigError(*problems)
    return settings


def _name_kind_of_model(values: dict[str, Any]) -> None:
    """Add the kind to ``model: {load: path}`` and ``model: {factory: function}``, which need not name it."""
    model = values.get("model")
    if isinstance(model, dict) and "kind" not in model:
        for kind in ("factory", "load"):
            if kind in model:
                values["model"] = {"kind": kind, **model}
                return


def _name_mode_of_learning(values: dict[str, Any]) -> None:
    """Add the mode to a section ``learning`` without one, and turn off averaging where the learner averages by itself.

    The mode is ``auto`` for a new built-in model, unless an option of a single learner is named.
    """
    learning = values.get("learning", {})
    if not isinstance(learning, dict):
        return
    if "mode" not in learning:
        mode = "auto" if _learns_by_itself(values, learning) else "per_sample"
        values["learning"] = learning = {"mode": mode, **learning}
    if learning["mode"] == "auto":
        values.setdefault("averaging", {"kind": "none"})


def _learns_by_itself(values: Mapping[str, Any], learning: Mapping[str, Any]) -> bool:
    model, task = values.get("model"), values.get("task", {"kind": "regression"})
    if not isinstance(model, dict) or not isinstance(task, dict):
        return False
    of_model, of_task = kinds_of(AnyModel).get(str(model.get("kind"))), kinds_of(AnyTask).get(str(task.get("kind")))
    mixes = bool(getattr(of_model, "learns_by_itself", False) and getattr(of_task, "mixes", False))
    plain = not any(model.get(name) for name in ("load", "freeze", "head")) and model.get("normalization") != "batch"
    return mixes and plain and "averaging" not in values and not any(name in learning for name in SINGLE_OPTIONS)


def default_decoder(source: Mapping[str, Any]) -> str:
    """Return ``csv`` for a CSV file, ``json`` for every other source.

    >>> default_decoder({"kind": "file", "path": "readings.csv.gz"})
    'csv'
    """
    if source.get("kind") == "file" and isinstance(source.get("path"), str):
        declared = source.get("format")
        if declared == "csv" or (declared is None and re.search(r"\.[ct]sv(\.gz)?$", source["path"])):
            return "csv"
    return "json"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of the configuration, for editors."""
    schema = Settings.model_json_schema()
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    schema["title"] = "learnd configuration"
    properties = schema["properties"]
    schema["required"] = [name for name in schema["required"] if name != "decode"]
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    for name, short_form in (("features", names), ("target", {"type": "string"})):
        annotations = {key: properties[name].pop(key) for key in ("description", "default") if key in properties[name]}
        properties[name] = {"anyOf": [short_form, properties[name]], **annotations}
    for section, key, default in (*_DEFAULT_KINDS, ("learning", "mode", "auto")):
        for reference in properties[section].get("oneOf", []):
            definition = schema["$defs"][reference["$ref"].rpartition("/")[2]]
            if definition["properties"][key].get("const") == default:
                definition["required"] = [name for name in definition["required"] if name != key]
        properties[section]["anyOf"] = properties[section].pop("oneOf")
    feature = schema["$defs"]["FeatureSettings"]
    feature["type"] = ["object", "null"]
    return schema
