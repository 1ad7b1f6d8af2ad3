"""Every format that `model.load` takes: trained on, partly frozen, and with a new head."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from learnd.checkpoint import state_codec
from learnd.checkpoint.reading import read_arrays
from learnd.export_worker.worker import build_export
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import Crash, MemorySource, ScriptedCrash
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import SAVED_MODEL, same_arrays, settings
from tests.support.stored_models import CLASSES, FEATURES, Trained, readings, write_all

SOURCES = (
    "keras-3-archive",
    "keras-3-hdf5",
    "keras-3-weights-into-json",
    "keras-3-weights-into-factory",
    "keras-3-bytes",
    "saved-model-exported",
    "saved-model-saved",
    "tensorflow-checkpoint",
    "keras-2-archive",
    "keras-2-hdf5",
    "keras-2-weights",
    "keras-2-saved-model",
    "own-checkpoint",
    "own-export",
)
SLOW = {
    "keras-3-hdf5",
    "keras-3-weights-into-json",
    "keras-3-bytes",
    "saved-model-saved",
    "keras-2-hdf5",
    "keras-2-weights",
}
"""Their way in is mostly that of another; tests/unit/test_stored.py has the rest, `pytest -m slow` runs them here."""
NEW_CLASSES = ["red", "green", "blue", "black", "white"]
USES: dict[str, dict[str, Any]] = {
    "train-on": {},
    "freeze": {"freeze": {"all_but_last": 1}},
    "new-head": {"head": {"old_units": 3}, "freeze": {"all_but_last": 1}},
}
EVERY_USE = {"keras-3-archive", "saved-model-exported"}
"""What is done with a model once it is open does not depend on the file that it came from."""


def _case(name: str, use: str) -> Any:
    quick = name not in SLOW and (use == "train-on" or name in EVERY_USE)
    return pytest.param(name, use, marks=() if quick else pytest.mark.slow)


CASES = [_case(name, use) for name in SOURCES for use in USES]
RECORDS, BATCH = 480, 16


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, old_keras_files: Path) -> Mapping[str, Trained]:
    return write_all(tmp_path_factory.mktemp("stored"), old_keras_files)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each case leaves its export, for one process to load them all."""
    return tmp_path_factory.mktemp("exports")


def _sections(trained: Trained, use: str) -> dict[str, Any]:
    return {
        "features": FEATURES,
        "target": "color",
        "task": {"kind": "classification", "classes": NEW_CLASSES if use == "new-head" else CLASSES},
        "model": {**trained.model, **USES[use]},
        # XLA takes seconds per case; tests/unit/test_stored.py shows that every format compiles.
        "learning": {
            "mode": "micro_batch",
            "batch_size": BATCH,
            "compile": False,
            "optimizer": {"kind": "adam", "learning_rate": 0.01},
        },
        "averaging": {"kind": "ema", "every_samples": BATCH},
        "checkpoint": {"every_seconds": None, "every_samples": 64},
        "export": SAVED_MODEL,
    }


class _OwnProcess:
    """Builds the export here, where the child process would: forty of those would take minutes."""

    def __call__(self, building: Path, urgent: bool) -> None:
        build_export(building)


def _pipeline(folder: Path, source: MemorySource, sections: dict[str, Any]) -> Pipeline:
    pipeline = make_pipeline(settings(folder, **sections), source=source)
    pipeline.publishing.exporter._build = _OwnProcess()  # type: ignore[method-assign]
    return pipeline


def _run_broken(folder: Path, script: list[Any], sections: dict[str, Any]) -> Pipeline:
    """Until the script's end, beginning anew after the crash in it; what it exports nobody would look at."""
    source = MemorySource(script)
    sections = {**sections, "export": {"formats": []}}
    with pytest.raises(ScriptedCrash):
        run(_pipeline(folder, source, sections), stopping=lambda: False)
    pipeline = _pipeline(folder, source, sections)
    run(pipeline, stopping=lambda: False)
    return pipeline


def _served(pipeline: Pipeline, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weights = [v.numpy() for v in pipeline.model.averaged._network.served_state()]
    return np.asarray(pipeline.model.averaged.predict(x, weights)["probabilities"])


@pytest.mark.parametrize(("name", "use"), CASES)
def test_any_model_goes_on_learning(
    name: str, use: str, stored: Mapping[str, Trained], exports: Path, tmp_path: Path
) -> None:
    """Equal before the first update; only what is thawed changes; the loss falls; a crash changes nothing."""
    trained, sections = stored[name], _sections(stored[name], use)
    classes = NEW_CLASSES if use == "new-head" else CLASSES
    records = readings(RECORDS, classes=classes, seed=7, turn=1)  # the world is not what they were trained on
    whole = _pipeline(tmp_path / "whole", MemorySource(records), sections)
    if use != "new-head":
        np.testing.assert_allclose(_served(whole, trained.x), trained.outputs, rtol=1e-4, atol=1e-6)
    before = {name: np.array(value.numpy()) for name, value in whole.saving.checkpoints._live.items()}
    slots = [value for name, value in before.items() if "momentum" in name]
    assert slots
    assert any(slot.any() for slot in slots) == (trained.slots and use != "new-head")

    run(whole, stopping=lambda: False)
    arrays, state = read_arrays(tmp_path / "whole" / "checkpoints")
    ring = state["evaluator"]["ring"][0][:RECORDS]
    assert ring[-100:].mean() < ring[:100].mean(), "the loss does not fall"
    _assert_only_the_thawed_changed(whole, before, arrays)

    broken = _run_broken(tmp_path / "broken", [*records[:233], Crash(), *records[233:]], sections)
    arrays_again, state_again = read_arrays(tmp_path / "broken" / "checkpoints")
    assert same_arrays(arrays, arrays_again) == []
    assert state_codec.encode(state) == state_codec.encode(state_again)
    assert broken.progress.samples == RECORDS

    (newest,) = (tmp_path / "whole" / "exports").glob("[0-9]*")  # one: classes that are all listed do not grow
    manifest = json.loads((newest / "learnd.json").read_text())
    assert manifest["classes"] == classes
    case = exports / f"{name}-{use}"
    (newest / "saved_model").rename(case)
    answers = whole.model.averaged.predict(trained.x, whole.model.averaged.weights())["probabilities"]
    np.savez(f"{case}.npz", x=trained.x, answers=answers)


def _assert_only_the_thawed_changed(
    pipeline: Pipeline, before: Mapping[str, np.ndarray[Any, Any]], after: Mapping[str, np.ndarray[Any, Any]]
) -> None:
    core = pipeline.model.averaged._network.core
    named = {name: v for name, v in pipeline.saving.checkpoints._live.items() if name.startswith("model/")}
    learning = {id(v.value) for v in core.trainable_variables}
    moving = {id(v.value) for v in pipeline.model.averaged._network.statistics()}
    of_core = {id(v.value) for v in core.weights}
    seen = 0
    for name, variable in named.items():
        if id(variable) not in of_core:
            continue
        changed = not np.array_equal(before[name], after[name])
        assert changed == (id(variable) in learning | moving), name
        seen += changed
    assert seen


def test_every_export_runs_where_nothing_of_ours_or_the_users_is(stored: Mapping[str, Trained], exports: Path) -> None:
    """One process with TensorFlow alone loads them all and gives equal answers; runs after the cases above."""
    cases = sorted(path.name for path in exports.iterdir() if path.is_dir())
    if not cases:
        pytest.skip("needs the exports of test_any_model_goes_on_learning: run the whole file")
    program = """
import sys
sys.modules["learnd"] = sys.modules["keras"] = sys.modules["tests"] = sys.modules["tf_keras"] = None
import pathlib, numpy as np, tensorflow as tf
for case in sys.argv[1:]:
    arrays = np.load(case + ".npz")
    serve = tf.saved_model.load(case).signatures["serving_default"]
    got = serve(inputs=tf.constant(arrays["x"]))["probabilities"].numpy()
    assert np.allclose(got, arrays["answers"], rtol=1e-3, atol=5e-5), (case, np.abs(got - arrays["answers"]).max())
    print(case)
"""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", program, *(str(exports / case) for case in cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=exports, env=environ)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == len(cases)
    assert tf.__version__
