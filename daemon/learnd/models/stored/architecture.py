"""Keras models with fresh weights from a serialised architecture of Keras 2 or Keras 3."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import keras

from learnd.core.tensors import KerasModel
from learnd.models.stored.custom import custom_code
from learnd.models.stored.keras2 import is_keras2, model_from_keras2
from learnd.models.stored.model import ARCHITECTURE, refuse, refusing
from learnd.models.stored.safety import lambdas_allowed

Json: TypeAlias = Mapping[str, Any] | Sequence[Any] | str | float | bool | None
"""A JSON document that nothing has checked yet."""


def read_json(path: Path, text: str | bytes, what: str) -> Any:
    """Return the JSON document in *text*, the part *what* of the file *path*.

    Raises
    ------
    ConfigError
        if *text* is not JSON.
    """
    with refusing(f"{path}: {what} is not JSON"):
        return json.loads(text)


def model_of_config(path: Path, config: Json, code: Sequence[str], allow_lambda: Sequence[str]) -> KerasModel:
    """Return the model that *config*, from the file *path*, describes.

    Raises
    ------
    ConfigError
        if it describes no model, or one that cannot be built, or holds code that is not allowed.
    """
    if not isinstance(config, Mapping) or "class_name" not in config or "config" not in config:
        refuse(f"{path} does not describe a Keras model")
    with_code = lambdas_allowed(path, config, allow_lambda)
    with refusing(f"{path}: its architecture cannot be built"), custom_code(code):
        # Safe mode is off only if the user named every layer in the file that holds code.
        return _build(config, safe_mode=not with_code)


def model_of_json_file(path: Path, code: Sequence[str], allow_lambda: Sequence[str]) -> KerasModel:
    """Return the model that the file *path*, written by `model.to_json()`, describes.

    Raises
    ------
    ConfigError
        if there is no such file, or for the reasons that `model_of_config` has.
    """
    if not path.is_file():
        refuse(f"{path} is not a file", ARCHITECTURE)
    with refusing(f"{path} is not text", ARCHITECTURE):
        text = path.read_text(encoding="utf-8")
    with refusing(f"{path} is not JSON", ARCHITECTURE):
        config = json.loads(text)
    if not isinstance(config, Mapping) or "class_name" not in config:
        refuse(f"{path} does not describe a Keras model; write it with model.to_json()", ARCHITECTURE)
    return model_of_config(path, config, code, allow_lambda)


def _build(config: Mapping[str, Any], *, safe_mode: bool) -> KerasModel:
    make = partial(keras.saving.deserialize_keras_object, safe_mode=safe_mode)
    if is_keras2(config):
        return model_from_keras2(config, make)
    model: KerasModel = make(dict(config))
    return model
