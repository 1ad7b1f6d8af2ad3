"""Trained models in every format that `model.load` takes, written by the libraries whose formats they are."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from learnd.models import to_bytes
from tests.support.helpers import ROOT, SAVED_MODEL, Daemon, config_text

CLASSES = ["red", "green", "blue"]
FEATURES = ["a", "b", "c", "d"]


@dataclass(frozen=True, slots=True)
class Trained:
    """One file: how it is configured, and what its library computed from *x*."""

    model: dict[str, Any]
    x: np.ndarray[Any, Any]
    outputs: np.ndarray[Any, Any]
    slots: bool = False
    """Its optimizer's state comes along."""
    environ: dict[str, str] = field(default_factory=dict)


def make_architecture(input_shape: tuple[int, ...], outputs: int) -> Any:
    """What `model.factory` names, where a file holds weights alone."""
    layers = keras.layers
    inputs = keras.Input(input_shape)
    hidden = layers.Dense(6, activation="relu", name="first")(inputs)
    hidden = layers.Dropout(0.1, name="drop")(layers.BatchNormalization(name="norm")(hidden))
    hidden = layers.Dense(5, activation="tanh", name="second")(hidden)
    return keras.Model(inputs, layers.Dense(outputs, activation="softmax", name="answer")(hidden))


def readings(count: int, *, seed: int = 0, classes: Sequence[str] = CLASSES, turn: int = 0) -> list[bytes]:
    """JSON records with four features and the class that they tell; with another *turn* they tell another."""
    names = list(classes)
    random = np.random.default_rng(seed)
    numbers = random.integers(0, len(names), count)
    x = random.normal(size=(count, 4)) + np.eye(4)[(numbers + turn) % 4] * 3
    rows = zip(x.tolist(), numbers.tolist(), strict=True)
    return [
        json.dumps({**dict(zip(FEATURES, row, strict=True)), "color": names[number]}).encode() for row, number in rows
    ]


def write_old_files(folder: Path) -> Path:
    """Files that the real Keras 2 wrote."""
    pytest.importorskip("tf_keras", reason="the Keras 2 library is missing: pip install tf-keras")
    command = [sys.executable, "-m", "tests.support.legacy_models", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def write_all(folder: Path, old: Path) -> dict[str, Trained]:
    """Every format; *old* holds those of Keras 2."""
    return {**_new(folder / "new"), **_old(old), **_own(folder / "own")}


def _new(folder: Path) -> dict[str, Trained]:
    folder.mkdir()
    keras.utils.set_random_seed(3)
    model = make_architecture((4,), 3)
    x = np.random.default_rng(1).normal(size=(32, 4)).astype("float32")
    y = np.eye(3, dtype="float32")[np.random.default_rng(2).integers(0, 3, 32)]
    model.compile(keras.optimizers.Adam(0.01), loss="categorical_crossentropy")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    outputs = model(x, training=False).numpy()
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    (folder / "model.json").write_text(model.to_json())
    (folder / "model.bytes").write_bytes(to_bytes(model))
    model.export(folder / "exported", verbose=False)
    tf.saved_model.save(model, str(folder / "saved"))
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(folder / "both"))
    model.save(folder / "model.h5")
    weights = folder / "model.weights.h5"
    factory = "tests.support.stored_models:make_architecture"
    found: dict[str, tuple[dict[str, Any], bool]] = {
        "keras-3-archive": ({"load": folder / "model.keras"}, True),
        "keras-3-hdf5": ({"load": folder / "model.h5"}, True),
        "keras-3-weights-into-json": ({"load": weights, "architecture": folder / "model.json"}, False),
        "keras-3-weights-into-factory": ({"factory": factory, "load": weights}, False),
        "keras-3-bytes": ({"load": folder / "model.bytes"}, True),
        "saved-model-exported": ({"load": folder / "exported"}, False),
        "saved-model-saved": ({"load": folder / "saved"}, False),
        "tensorflow-checkpoint": ({"factory": factory, "load": folder / "both"}, True),
    }
    return {name: Trained(_texts(model), x, outputs, slots) for name, (model, slots) in found.items()}


def _old(folder: Path) -> dict[str, Trained]:
    with np.load(folder / "plain.npz") as arrays:
        x, outputs = arrays["inputs"], arrays["outputs"]
    found: dict[str, tuple[dict[str, Any], bool]] = {
        "keras-2-archive": ({"load": folder / "plain.keras"}, True),
        "keras-2-hdf5": ({"load": folder / "plain.h5"}, True),
        "keras-2-weights": ({"load": folder / "plain.weights.h5", "architecture": folder / "plain.json"}, False),
        "keras-2-saved-model": ({"load": folder / "plain_saved_model"}, False),
    }
    return {name: Trained(_texts(model), x, outputs, slots) for name, (model, slots) in found.items()}


def _own(folder: Path) -> dict[str, Trained]:
    """A learnd's data_dir and its newest export, after it has learned from a file."""
    folder.mkdir()
    (folder / "stream.jsonl").write_bytes(b"\n".join(readings(600)) + b"\n")
    config = folder / "config.yaml"
    config.write_text(
        config_text(
            folder / "data",
            source={"kind": "file", "path": str(folder / "stream.jsonl")},
            features=FEATURES,
            target="color",
            task={"kind": "classification", "classes": CLASSES},
            model={"kind": "mlp", "hidden": [6, 5]},
            averaging={"kind": "none"},
            export=SAVED_MODEL,
        )
    )
    with Daemon(config, "--once") as daemon:
        daemon.finish()
    x = np.random.default_rng(1).normal(size=(32, 4)).astype("float32")
    export = (folder / "data" / "exports" / "latest").resolve()
    served = tf.saved_model.load(str(export / "saved_model")).signatures["serving_default"](inputs=tf.constant(x))
    outputs = served["probabilities"].numpy()
    return {
        "own-checkpoint": Trained({"load": str(folder / "data")}, x, outputs, slots=True),
        "own-export": Trained({"load": str(export)}, x, outputs),
    }


def _texts(model: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) for key, value in model.items()}
