"""TensorFlow SavedModel: what C++ programs, TensorFlow Serving and other Pythons load."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from learnd.types import Float32Array


class SavedModelFormat:
    """``saved_model/`` with the signature ``serving_default``: raw rows in, named outputs, any batch size."""

    file_name = "saved_model"

    def write(self, network: Any, target: Path) -> None:
        """Write *network* to the folder *target*."""
        save_with_signature(network, target, batch=None)

    def reader(self, target: Path) -> "SavedModelReader":
        """The written model, loaded back with nothing but TensorFlow."""
        return SavedModelReader(target)


class SavedModelReader:
    """Answers from a SavedModel on disk."""

    def __init__(self, target: Path) -> None:
        # The loaded object owns the signature's variables; it must live as long as the signature.
        self._loaded = tf.saved_model.load(str(target))
        self._signature = self._loaded.signatures["serving_default"]

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        return {name: tensor.numpy() for name, tensor in self._signature(inputs=tf.constant(x)).items()}


def save_with_signature(network: Any, target: Path, *, batch: int | None) -> None:
    """Save *network*'s serving function and the variables that it reads; nothing of our code goes along."""
    module = tf.Module()
    # Raw variables: a Keras layer would drag its configuration, and so our classes, into the file.
    module.weights = [variable.value for variable in network.served_state()]
    spec = tf.TensorSpec((batch, *network.row_shape), tf.float32, name="inputs")
    module.serve = tf.function(lambda inputs: dict(network.call(inputs)), autograph=False, input_signature=[spec])
    tf.saved_model.save(module, str(target), signatures={"serving_default": module.serve})
