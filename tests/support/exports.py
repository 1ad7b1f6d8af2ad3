"""Exports for tests, made by the daemon's own parts in this process, where the real thing takes a child's start."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from learnd.config.settings import LearningRecipe
from learnd.core.types import Float32Array
from learnd.export.exportable_model import ExportableModel
from learnd.export_worker import worker
from learnd.export_worker.restore_model import restore_model
from learnd.runtime import loop
from learnd.runtime.loop import Pipeline
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import SAVED_MODEL, readings, settings

NO_EXPORT: dict[str, Any] = {"formats": []}
PLAIN = "import sys; sys.modules['keras'] = sys.modules['learnd'] = None  # nobody may lean on them\n"


def learned(
    data_dir: Path,
    *,
    records: int = 300,
    script: Sequence[Any] | None = None,
    simulated: bool = False,
    **sections: Any,
) -> Pipeline:
    """A pipeline that learned *records* readings to their end, saved, and exported to ``data_dir/exports/latest``.

    With `NO_EXPORT` it publishes nothing: a test that makes its own candidate need not pay for one.

    Without XLA: a test then starts in a second rather than four. Update and network are the same.
    """
    learning = {"compile": False, "mode": "per_sample", **sections.pop("learning", {})}
    defaults = {"decode": {"kind": "json", "time": "t", "time_numbers": "any", "key": "k"}, "export": SAVED_MODEL}
    chosen = settings(data_dir, **{**defaults, "learning": learning, **sections})
    source = None if simulated else MemorySource(script if script is not None else readings(records))
    pipeline = make_pipeline(chosen, source=source)
    pipeline.publishing.exporter._build = lambda building, urgent: worker.build_export(building)  # type: ignore[method-assign]
    loop.run(pipeline, stopping=lambda: False)
    assert pipeline.publishing.last is not None or not chosen.export.formats, "the export failed; the log says why"
    return pipeline


def hollow(building: Path, urgent: bool = False) -> None:
    """In the place of the child process: of an export only as much as the daemon itself reads."""
    asked = json.loads((building / ".request" / "request.json").read_text())
    told = {"samples": asked["manifest"]["samples"], "formats": dict.fromkeys(asked["formats"]), "unavailable": {}}
    (building / "learnd.json").write_text(json.dumps(told))


def rows(count: int, *, seed: int = 1, window: int | None = None) -> tuple[Float32Array, Float32Array]:
    """Inputs as `readings` has them, and their targets."""
    random = np.random.default_rng(seed)
    shape = (count, 3) if window is None else (count, window, 3)
    x = (random.normal(size=shape) * [3.0, 10.0, 0.5] + [5.0, 100.0, -1.0]).astype(np.float32)
    last = x if window is None else x[:, -1]
    return x, (last[:, :1] * 2.0 - last[:, 1:2] * 0.1).astype(np.float32)


def in_plain_python(script: str, *arguments: Any) -> str:
    """What *script* prints in a fresh interpreter that has neither Keras nor learnd."""
    done = subprocess.run(
        [sys.executable, "-c", PLAIN + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def candidate_of(pipeline: Pipeline, examples: Float32Array, *, unroll: bool) -> ExportableModel:
    """What the export process would make of the pipeline's present state."""
    learning = pipeline.model.continuation()
    arrays = {f"weight_{i}": weight for i, weight in enumerate(pipeline.model.averaged.weights())}
    arrays |= {f"learning_{i}": array for i, array in enumerate(learning.values())}
    recipe = LearningRecipe.model_validate(pipeline.publishing.exporter._recipe)
    return restore_model(recipe, list(learning), {**arrays, "examples": examples}, unroll=unroll)
