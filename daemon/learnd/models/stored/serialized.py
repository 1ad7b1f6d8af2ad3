"""A model as bytes and back, optimizer included: a Keras archive that Keras itself opens too."""

import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from learnd.models.stored.archive import OUR_OPTIMIZER, OUR_SLOTS, numbered, open_archive
from learnd.models.stored.model import StoredModel
from learnd.models.stored.slots import slots_of, unique_paths


def to_bytes(model: Any, optimizer: Any = None) -> bytes:
    """*model*, and the state of *optimizer*, or else of the one that it was compiled with.

    An optimizer that is given is built on ``model.trainable_variables``.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Keras writes to paths alone.
        path = Path(folder) / "model.keras"
        model.save(path)
        data = path.read_bytes()
    # Not left to Keras: once a model was saved as HDF5, Keras 3.15 leaves its optimizer's settings out of archives.
    optimizer = getattr(model, "optimizer", None) if optimizer is None else optimizer
    return data if optimizer is None or not optimizer.built else _with_optimizer(data, model, optimizer)


def from_bytes(data: bytes, *, code: Sequence[str] = (), allow_lambda: Sequence[str] = ()) -> StoredModel:
    """The inverse of `to_bytes`; also any Keras archive that was read into memory.

    Raises
    ------
    ConfigError
        for bytes that hold no such model.
    """
    return open_archive(Path("the model in memory"), io.BytesIO(data), code, allow_lambda)


def _with_optimizer(data: bytes, model: Any, optimizer: Any) -> bytes:
    variables = model.trainable_variables
    arrays = io.BytesIO()
    np.savez(arrays, **numbered(slots_of(optimizer, variables), unique_paths(variables)))  # type: ignore[arg-type]
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(OUR_OPTIMIZER, json.dumps(keras.optimizers.serialize(optimizer)))
        archive.writestr(OUR_SLOTS, arrays.getvalue())
    return buffer.getvalue()
