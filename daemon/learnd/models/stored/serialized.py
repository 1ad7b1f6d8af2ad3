"""Conversion of a model and its optimizer to bytes and back.

The bytes are a Keras archive, which Keras itself can open too.
"""

import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from learnd.core.tensors import KerasModel, Optimizer
from learnd.models.stored.archive import OUR_OPTIMIZER, OUR_SLOTS, open_archive, slots_by_position
from learnd.models.stored.model import StoredModel
from learnd.models.stored.slots import slots_of, unique_paths


def to_bytes(model: KerasModel, optimizer: Optimizer | None = None) -> bytes:
    """Return *model* and the state of *optimizer* as bytes. None: the optimizer that the model was compiled with.

    An *optimizer* must be built for ``model.trainable_variables``.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Keras writes only to paths.
        path = Path(folder) / "model.keras"
        model.save(path)
        data = path.read_bytes()
    # Not left to Keras: after saving a model as HDF5, Keras 3.15 omits its optimizer's settings from archives.
    optimizer = getattr(model, "optimizer", None) if optimizer is None else optimizer
    return data if optimizer is None or not optimizer.built else _with_optimizer(data, model, optimizer)


def from_bytes(data: bytes, *, code: Sequence[str] = (), allow_lambda: Sequence[str] = ()) -> StoredModel:
    """Return the model in *data*, which `to_bytes` made, or in any Keras archive that was read into memory.

    Raises
    ------
    ConfigError
        for bytes that hold no such model, or code that is not allowed.
    """
    return open_archive(Path("the model in memory"), io.BytesIO(data), code, allow_lambda)


def _with_optimizer(data: bytes, model: KerasModel, optimizer: Optimizer) -> bytes:
    variables = model.trainable_variables
    arrays = io.BytesIO()
    np.savez(arrays, **slots_by_position(slots_of(optimizer, variables), unique_paths(variables)))  # type: ignore[arg-type]
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(OUR_OPTIMIZER, json.dumps(keras.optimizers.serialize(optimizer)))
        archive.writestr(OUR_SLOTS, arrays.getvalue())
    return buffer.getvalue()
