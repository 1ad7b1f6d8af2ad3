"""What every export format owes: what it wrote can be read back, and answers as the live averaged model does."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from learnd.core.errors import FormatUnavailableError
from learnd.export.formats import EXPORTERS
from learnd.export.verify import largest_difference, spread_of
from learnd.runtime.loop import Pipeline
from learnd.wiring.pipeline import make_pipeline
from tests.support.exports import candidate_of
from tests.support.helpers import settings

CASES = (
    "saved_model",
    "tflite",
    "tflite_float16",
    "tflite_dynamic",
    "tflite_int8",
    "tflite_training",
    "keras",
    "hdf5",
    "onnx",
)
MODELS: dict[str, dict[str, Any]] = {
    "rows": {"task": {"kind": "reconstruction"}, "target": None, "model": {"kind": "mlp", "hidden": [40, 40]}},
    "windows": {"task": {"kind": "forecast", "window": 6}, "target": None, "model": {"kind": "gru", "units": 20}},
    "levels": {"task": {"kind": "regression", "window": 6}, "model": {"kind": "conv1d", "filters": [40, 40]}},
    "classes": {
        "task": {"kind": "classification"},  # three of 32 that may come
        "model": {"kind": "mlp", "hidden": [40, 40]},
    },
    "loaded": {"task": {"kind": "regression"}},  # a user's file, with what Keras keeps in no variable
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A network of random weights that has seen three sensors of very different ranges."""
    folder = tmp_path_factory.mktemp("data")
    sections = {"learning": {"mode": "per_sample", "compile": False}, **MODELS[request.param]}
    if request.param == "loaded":
        sections["model"] = {"load": str(_file_of_a_user(folder))}
    chosen = settings(folder, **sections)
    pipeline = make_pipeline(chosen)
    network = pipeline.model.averaged._network
    x = _readings(network, 400)
    random = np.random.default_rng(1)
    y = {"windows": x[:, 0] * 1.1, "levels": x[:, -1, :1] * 2.0} if x.ndim == 3 else {}
    targets = y.get(request.param, random.integers(0, 3, (400, 1)).astype(np.float32))
    for rows in (slice(0, 32), slice(32, None)):  # the scales are known after the first rows
        network.observe(x[rows], targets[rows])
        network.renew_scales()
    for variable in network.trainable_variables:
        variable.assign(0.7 * random.normal(size=variable.shape).astype(np.float32) / np.sqrt(variable.shape[0]))
    return pipeline


def _file_of_a_user(folder: Path) -> Path:
    layers = keras.layers
    adapted = layers.Normalization(mean=[1.0, 0.0, 7e4], variance=[1e-4, 1.0, 4e4])
    dense = [layers.Dense(40, activation="relu"), layers.Dense(40, activation="relu"), layers.Dense(1)]
    keras.Sequential([layers.Input((3,)), adapted, *dense]).save(folder / "mine.keras")
    return folder / "mine.keras"


def _readings(network: Any, count: int, *, seed: int = 0) -> Any:
    shape = (count, *network.row_shape)
    return (np.random.default_rng(seed).normal(size=shape) * [0.01, 1.0, 200.0] + [1.0, 0.0, 7e4]).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_written_models_answer_as_the_live_one(name: str, model: Pipeline, tmp_path: Path) -> None:
    """Every number of an answer within the format's tolerance of its spread; nothing but the file is left.

    Of all answers, and of those to a machine that stands still, which hardly vary.
    """
    pipeline = model
    implementation = EXPORTERS[name].load()()
    network = pipeline.model.averaged._network
    candidate = candidate_of(pipeline, _readings(network, 300, seed=2), unroll=implementation.unroll)
    target = tmp_path / implementation.file_name
    implementation.write(candidate, target)
    assert [path.name for path in tmp_path.iterdir()] == [implementation.file_name]
    reader = implementation.reader(target)
    rounded = implementation.tolerance is not None
    tolerance = implementation.tolerance if rounded else 1e-4
    x = _readings(network, 60, seed=3)
    still = np.repeat(x[:1], 60, axis=0) * np.linspace(1.0, 1.0 + 1e-6, 60).reshape(-1, *[1] * (x.ndim - 1))
    for rows in (x, still.astype(np.float32)):
        wanted = pipeline.model.averaged.predict(rows, pipeline.model.averaged.weights())
        assert {key: value.shape for key, value in reader(rows).items()} == {k: v.shape for k, v in wanted.items()}
        least = network.least_spreads(wanted)
        spreads = {key: np.maximum(spread, least[key]) for key, spread in spread_of(wanted).items()}
        largest_difference(name, reader(rows), wanted, spreads, tolerance=tolerance, mean=rounded)
    reader.check(x)


def test_all_formats_are_among_the_cases() -> None:
    """Nothing is exempt."""
    assert sorted(CASES) == sorted(EXPORTERS)
    assert issubclass(FormatUnavailableError, Exception)
