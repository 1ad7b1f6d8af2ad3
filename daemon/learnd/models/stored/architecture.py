"""A serialised architecture, of either Keras, as a model with fresh weights."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras

from learnd.models.stored.custom import known
from learnd.models.stored.keras2 import is_keras2, model_from_keras2
from learnd.models.stored.model import ARCHITECTURE, refuse, refusing
from learnd.models.stored.safety import lambdas_allowed


def read_json(path: Path, text: str | bytes, what: str) -> Any:
    """The JSON *text* of *path*; a `ConfigError` where it is none."""
    with refusing(f"{path}: {what} is not JSON"):
        return json.loads(text)


def model_of_config(path: Path, config: Any, code: Sequence[str], allow_lambda: Sequence[str]) -> Any:
    """The model that *config*, found in *path*, describes."""
    if not isinstance(config, Mapping) or "class_name" not in config or "config" not in config:
        refuse(f"{path} describes no Keras model")
    with_code = lambdas_allowed(path, config, allow_lambda)
    with refusing(f"{path}: its architecture cannot be built"), known(code):
        # Off only where every piece of code in the file was named by the user, layer by layer.
        return _built(config, safe_mode=not with_code)


def model_of_json_file(path: Path, code: Sequence[str], allow_lambda: Sequence[str]) -> Any:
    """The model whose `to_json` is in the file *path*."""
    if not path.is_file():
        refuse(f"{path} is not a file", ARCHITECTURE)
    with refusing(f"{path} is not text", ARCHITECTURE):
        text = path.read_text(encoding="utf-8")
    with refusing(f"{path} is not JSON", ARCHITECTURE):
        config = json.loads(text)
    if not isinstance(config, Mapping) or "class_name" not in config:
        refuse(f"{path} describes no Keras model; model.to_json() does", ARCHITECTURE)
    return model_of_config(path, config, code, allow_lambda)


def _built(config: Mapping[str, Any], *, safe_mode: bool) -> Any:
    make = partial(keras.saving.deserialize_keras_object, safe_mode=safe_mode)
    return model_from_keras2(config, make) if is_keras2(config) else make(dict(config))
