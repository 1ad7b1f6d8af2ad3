"""The configuration: YAML to frozen settings. Every error is found at once, with its place and the way out."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from learnd.config.cross_checks import contradictions
from learnd.config.error_messages import translate
from learnd.config.settings import Settings
from learnd.config.yaml_document import parse
from learnd.core.errors import ConfigError, Problem


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in the YAML file at *path*.

    Raises
    ------
    ConfigError
        with every problem of the file, each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            Problem("", f"cannot be read ({error}); `learnd init` writes a configuration", str(path))
        ) from error
    return loads(text, file=str(path), environ=os.environ if environ is None else environ)


def loads(text: str, *, file: str = "<configuration>", environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in YAML *text*; see `load`."""
    document = parse(text, file=file, environ=environ or {})
    values = document.values
    if not isinstance(values, dict):
        problems = document.problems or [Problem("", "must hold keys and values; see `learnd init`", file, 1)]
        raise ConfigError(*problems)
    broken = {problem.path for problem in document.problems}
    values = {**values}
    source = values.get("source")  # without one, that is the problem, and no decoder is missing
    values.setdefault("decode", {"kind": default_decoder(source) if isinstance(source, dict) else "json"})
    for section, key, default in _DEFAULT_KINDS:
        if isinstance(values.get(section), dict):
            values[section] = {key: default, **values[section]}
    _name_kind_of_model(values)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        found = [translate(details, document) for details in error.errors()]
        raise ConfigError(*document.problems, *(p for p in found if p.path not in broken)) from None
    problems = [
        *document.problems,
        *(document.problem(at, message) for at, message in contradictions(settings)),
    ]
    if problems:
        raise ConfigError(*problems)
    return settings


_DEFAULT_KINDS = (
    ("task", "kind", "regression"),
    ("learning", "mode", "per_sample"),
    ("averaging", "kind", "window"),
    ("decode", "kind", "json"),
)


def _name_kind_of_model(values: dict[str, Any]) -> None:
    """``model: {load: path}`` and ``model: {factory: function}`` say enough."""
    model = values.get("model")
    if isinstance(model, dict) and "kind" not in model:
        for kind in ("factory", "load"):
            if kind in model:
                values["model"] = {"kind": kind, **model}
                return


def default_decoder(source: Mapping[str, Any]) -> str:
    """``csv`` for a CSV file, ``json`` for everything else.

    >>> default_decoder({"kind": "file", "path": "readings.csv.gz"})
    'csv'
    """
    if source.get("kind") == "file" and isinstance(source.get("path"), str):
        declared = source.get("format")
        if declared == "csv" or (declared is None and re.search(r"\.[ct]sv(\.gz)?$", source["path"])):
            return "csv"
    return "json"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of the configuration, for editors."""
    schema = Settings.model_json_schema()
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    schema["title"] = "learnd configuration"
    properties = schema["properties"]
    schema["required"] = [name for name in schema["required"] if name != "decode"]
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    for name, brief in (("features", names), ("target", {"type": "string"})):
        said = {key: properties[name].pop(key) for key in ("description", "default") if key in properties[name]}
        properties[name] = {"anyOf": [brief, properties[name]], **said}
    for section, key, default in _DEFAULT_KINDS:
        for reference in properties[section].get("oneOf", []):
            definition = schema["$defs"][reference["$ref"].rpartition("/")[2]]
            if definition["properties"][key].get("const") == default:
                definition["required"] = [name for name in definition["required"] if name != key]
        properties[section]["anyOf"] = properties[section].pop("oneOf")
    feature = schema["$defs"]["FeatureSettings"]
    feature["type"] = ["object", "null"]
    return schema
