"""The rehearsal: what a model cannot have is known before the first record, and is no failed export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.core.errors import ConfigError
from learnd.export.child_process import ChildProcess
from learnd.export.rehearsal import made_up_rows
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import MemorySource
from learnd.wiring.fresh_snapshot import fresh_snapshot
from learnd.wiring.learner import make_learning
from learnd.wiring.pipeline import check, make_pipeline
from tests.support.helpers import readings, settings

LACKS_ONE: dict[str, Any] = {
    "model": {"factory": "tests.support.user_models:without_tflite"},
    "learning": {"mode": "micro_batch", "batch_size": 16, "compile": False},
    "averaging": {"kind": "none"},
}


def _pipeline(folder: Path, formats: list[str], **sections: Any) -> Pipeline:
    chosen = {**LACKS_ONE, "export": {"formats": formats, "rehearse": True}, **sections}
    return make_pipeline(settings(folder, **chosen), source=MemorySource(readings(64)))


def test_a_format_that_the_model_cannot_have_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are published, and the manifest says why it is missing. The next start reads the record."""
    first = _pipeline(tmp_path, ["saved_model", "tflite"])
    run(first, stopping=lambda: False)
    newest = max((tmp_path / "exports").glob("[0-9]*"), key=lambda path: int(path.name))
    manifest = json.loads((newest / "learnd.json").read_text())
    assert list(manifest["formats"]) == ["saved_model"]
    assert "tflite cannot be" in manifest["unavailable"]["tflite"]

    def no_child(*_: object, **__: object) -> None:
        raise AssertionError("the rehearsal was repeated")

    monkeypatch.setattr(ChildProcess, "run", no_child)
    again = _pipeline(tmp_path, ["saved_model", "tflite"])
    assert again.open()
    assert list(again.publishing.exporter._unavailable) == ["tflite"]
    again.close()


def test_a_model_that_cannot_be_exported_at_all_is_refused_before_a_record_is_read(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["tflite"])
    with pytest.raises(ConfigError, match=r"export.formats: .*none of them \(tflite: .*formats: \[\]"):
        pipeline.open()
    assert not list((tmp_path / "exports").glob("[0-9]*"))


@pytest.mark.slow
def test_validate_reports_it_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"export.formats"):
        check(settings(tmp_path, **LACKS_ONE, export={"formats": ["tflite"], "rehearse": True}))


def test_a_classifier_without_classes_yet_is_rehearsed_with_two(tmp_path: Path) -> None:
    """None has appeared, and an export without outputs is none."""
    chosen = {**LACKS_ONE, "task": {"kind": "classification"}, "model": {"kind": "mlp", "hidden": [4]}}
    options = settings(tmp_path, **chosen)
    core = make_learning(options, options)
    snapshot, answers = fresh_snapshot(core, options.features)
    assert answers["probabilities"].shape == (64, 2) and len(snapshot.labels) == 2
    assert core.model.averaged.predict(snapshot.probe_inputs, snapshot.weights)["probabilities"].shape == (64, 2)
    assert core.model.classes() == (), "the model itself has not changed"


def test_made_up_rows_keep_to_the_limits_of_the_features() -> None:
    rows = made_up_rows((5, 3), [(-np.inf, np.inf, False), (0.0, 0.5, False), (0.0, 3.0, True)])
    assert rows.shape == (64, 5, 3) and rows[..., 1].min() >= 0.0 and rows[..., 1].max() <= 0.5
    assert set(rows[..., 2].ravel().tolist()) == {0.0, 1.0, 2.0, 3.0}
