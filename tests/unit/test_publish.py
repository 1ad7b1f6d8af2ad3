"""Exports appear whole, verified and under a new number, or not at all."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf

from learnd.config.settings import ModelRecipe, Settings
from learnd.core.errors import ExportAbandonedError, ExportWorkerError, VerificationError
from learnd.core.snapshot import Snapshot
from learnd.core.types import PrequentialScores, TopicPartition
from learnd.export import versions
from learnd.export.child_process import ChildProcess
from learnd.export.formats import EXPORTERS
from learnd.export.publisher import Exported, Exporter
from learnd.export.settings import Format
from learnd.export.verify import largest_difference, spread_of
from learnd.export.versions import YOUNG_S, Versions
from learnd.export_worker import worker
from learnd.wiring.pipeline import describe, make_pipeline
from tests.support.exports import hollow, learned
from tests.support.helpers import settings, until
from tests.unit.test_versions import Clock

pytestmark = pytest.mark.usefixtures("shared_traces")


class _Child:
    """Stands where the child process would, with the same code, so that a test needs no process."""

    def __init__(self, spoil: Any = None) -> None:
        self.spoil = spoil

    def __call__(self, building: Path, urgent: bool) -> None:
        if self.spoil is not None:
            self.spoil(building)
        worker.build_export(building)


def _snapshot(chosen: Settings, pipeline: Any, samples: int = 10) -> Snapshot:
    random = np.random.default_rng(1)
    x = random.normal(size=(16, *pipeline.model.averaged._network.row_shape)).astype(np.float32) * 3 + 5
    weights = tuple(
        w + random.normal(size=w.shape).astype(np.float32) * 0.1 + 0.2 for w in pipeline.model.averaged.weights()
    )
    signal = PrequentialScores(samples, 0.5, 0.4, 1.0, 0.6)
    return Snapshot(weights, x, samples, samples, {TopicPartition("t", 0): 7}, 0.0, 60.0, signal)


def _exporter(
    folder: Path,
    chosen: Settings,
    pipeline: Any,
    child: Callable[[Path, bool], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Exporter:
    exporter = Exporter(
        folder,
        chosen.export,
        answer=pipeline.model.averaged.predict,
        recipe=chosen.model_dump(mode="json", include=set(ModelRecipe.model_fields)),
        description=describe(chosen),
        clock=clock,
        now=lambda: 0.0,  # so that numbers are small
    )
    if child is not None:
        exporter._build = child  # type: ignore[method-assign]
    exporter.open()
    return exporter


def _export(exporter: Exporter, snapshot: Snapshot) -> Exported:
    exporter.begin(snapshot)
    assert exporter.wait(120)
    outcome = exporter.outcome()
    assert outcome is not None
    return outcome


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings(tmp_path_factory.mktemp("data"), export={"keep": 2})


@pytest.fixture(scope="module")
def pipeline(chosen: Settings) -> Any:
    return make_pipeline(chosen)


def test_an_export_is_published_by_a_child_process(
    tmp_path: Path,
    chosen: Settings,
    pipeline: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Both formats and a manifest that is true; nothing temporary stays. What lies where learnd runs is not run."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "signal.py").write_text("raise RuntimeError('not ours')")
    monkeypatch.chdir(elsewhere)
    outcome = _export(_exporter(tmp_path, chosen, pipeline), _snapshot(chosen, pipeline))
    assert outcome.error == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [".last-number", "1", "latest"]
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    linked = [path.name for path in (tmp_path / "1" / "saved_model").iterdir()]
    assert names == sorted(
        ["MODEL_CARD.md", "example_request.json", "learnd.json", "model.tflite", "saved_model", *linked]
    )
    manifest = json.loads((tmp_path / "1" / "learnd.json").read_text())
    assert manifest["offsets"] == [{"topic": "t", "partition": 0, "next_offset": 7}]
    assert manifest["inputs"] == [{"name": "inputs", "dtype": "float32", "shape": [None, 3]}]
    assert manifest["outputs"] == [{"name": "prediction", "dtype": "float32", "shape": [None, 1]}]
    assert [feature["name"] for feature in manifest["features"]] == ["a", "b", "c"]
    assert manifest["config_sha256"] == chosen.digest()
    assert manifest["time_range"]["last"] == "1970-01-01T00:01:00+00:00"
    assert "model.tflite" in manifest["files"]
    for entry in manifest["formats"].values():
        assert entry["difference_of_allowed"] <= 1.0
        assert entry["verified_rows"] == 8


def test_the_folder_of_a_version_is_a_saved_model_too(tmp_path: Path, chosen: Settings, pipeline: Any) -> None:
    """TensorFlow Serving, given the folder of all exports, loads from the numbered folder itself."""
    taken = _snapshot(chosen, pipeline)
    assert _export(_exporter(tmp_path, chosen, pipeline, _Child()), taken).error == ""
    x = tf.constant(taken.probe_inputs)
    answers = [
        tf.saved_model.load(str(tmp_path / folder)).signatures["serving_default"](inputs=x)["prediction"].numpy()
        for folder in ("1", "latest", "1/saved_model")
    ]
    assert answers[0].tobytes() == answers[1].tobytes() == answers[2].tobytes()
    assert not any(Path(path.readlink()).is_absolute() for path in (tmp_path / "1").iterdir() if path.is_symlink())


def test_the_export_runs_without_learnd_or_keras(tmp_path: Path, chosen: Settings, pipeline: Any) -> None:
    """A process with neither on its path loads the SavedModel and gives the same answer, for any batch size."""
    snapshot = _snapshot(chosen, pipeline)
    assert _export(_exporter(tmp_path, chosen, pipeline, _Child()), snapshot).error == ""
    expected = pipeline.model.averaged.predict(snapshot.probe_inputs, snapshot.weights)["prediction"]
    np.save(tmp_path / "x.npy", snapshot.probe_inputs)
    program = f"""
import sys
sys.modules["learnd"] = None
import numpy as np, tensorflow as tf
serve = tf.saved_model.load(r"{tmp_path / "1" / "saved_model"}").signatures["serving_default"]
x = tf.constant(np.load(r"{tmp_path / "x.npy"}"))
y = serve(inputs=x)["prediction"].numpy()
assert np.allclose(serve(inputs=x[:1])["prediction"], y[:1], rtol=1e-5)
np.save(r"{tmp_path / "y.npy"}", y)
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5)


def _spoil_weight(building: Path) -> None:
    path = building / ".request" / "arrays.npz"
    arrays = dict(np.load(path))
    arrays["weight_0"] = arrays["weight_0"] + 0.05
    np.savez(path, **arrays)


def test_an_export_that_answers_differently_is_not_published(tmp_path: Path, chosen: Settings, pipeline: Any) -> None:
    """Its number is used up all the same; the one before it stays."""
    exporter = _exporter(tmp_path, chosen, pipeline, _Child())
    assert _export(exporter, _snapshot(chosen, pipeline)).number == 1
    exporter._build = _Child(_spoil_weight)  # type: ignore[method-assign]
    outcome = _export(exporter, _snapshot(chosen, pipeline))
    assert "differs from the live model" in outcome.error
    assert exporter.numbers() == [1]
    exporter._build = _Child()  # type: ignore[method-assign]
    assert _export(exporter, _snapshot(chosen, pipeline)).number == 3


def test_a_crashing_child_is_a_failed_export_and_nothing_more(
    tmp_path: Path, chosen: Settings, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed by a signal, it leaves no directory behind."""
    killer = tmp_path / "python"
    killer.write_text('#!/bin/sh\nprintf saved_model > "$5/.request/format"\nkill -SEGV $$\n')
    killer.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killer))
    exporter = _exporter(tmp_path / "exports", chosen, pipeline)
    assert "killed by SIGSEGV while it worked on saved_model" in _export(exporter, _snapshot(chosen, pipeline)).error
    assert exporter.numbers() == []
    assert not list((tmp_path / "exports").glob(".building-*"))


def test_numbers_are_never_used_again_and_old_ones_are_pruned(tmp_path: Path, chosen: Settings, pipeline: Any) -> None:
    """Not after pruning, not after a restart, not after all of them were taken away."""
    clock = Clock()
    for _ in range(3):
        exporter = _exporter(tmp_path, chosen, pipeline, hollow, clock)
        clock.at_s += YOUNG_S
        assert _export(exporter, _snapshot(chosen, pipeline)).error == ""
    assert exporter.numbers() == [2, 3]
    assert exporter.newest_samples() == 10
    more = chosen.model_copy(update={"export": chosen.export.model_copy(update={"formats": ["saved_model", "keras"]})})
    assert _exporter(tmp_path, more, pipeline).newest_samples() == 0, "keras is wanted now, and not there"
    for number in exporter.numbers():
        (tmp_path / str(number)).rename(tmp_path.parent / f"{tmp_path.name}-taken-{number}")
    assert _export(_exporter(tmp_path, chosen, pipeline, hollow), _snapshot(chosen, pipeline)).number == 4


def test_what_a_crash_left_is_swept_at_the_start(tmp_path: Path, chosen: Settings, pipeline: Any) -> None:
    """Only finished exports are ever seen."""
    (tmp_path / ".building-9" / "saved_model").mkdir(parents=True)
    exporter = _exporter(tmp_path, chosen, pipeline)
    assert exporter.numbers() == []
    assert not (tmp_path / ".building-9").exists()


def test_an_abandoned_export_leaves_nothing(tmp_path: Path, chosen: Settings, pipeline: Any) -> None:
    """The child is killed; the outcome says that it was given up."""
    exporter = _exporter(tmp_path, chosen, pipeline)
    exporter.begin(_snapshot(chosen, pipeline))
    exporter.abandon()
    outcome = exporter.outcome()
    assert outcome is not None
    assert outcome.given_up
    assert exporter.numbers() == []


def test_a_child_that_just_starts_is_abandoned_too(
    tmp_path: Path, chosen: Settings, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the very moment at which it comes to be; else a stop would wait until it has built everything."""
    exporter = _exporter(tmp_path, chosen, pipeline)
    real, abandoning = subprocess.Popen, threading.Event()

    def abandon() -> None:
        abandoning.set()
        exporter.abandon()

    thread = threading.Thread(target=abandon, daemon=True)

    def start(command: list[str], **options: Any) -> Any:
        thread.start()
        assert abandoning.wait(10)
        thread.join(0.2)  # what it does before there is a child, it has done now
        return real([sys.executable, "-c", "input()"], **options, stdin=subprocess.PIPE)

    monkeypatch.setattr(subprocess, "Popen", start)
    exporter.begin(_snapshot(chosen, pipeline), urgent=True)
    until(lambda: thread.ident is not None and not thread.is_alive(), what="the end of abandon", timeout_s=10)
    outcome = exporter.outcome()
    assert outcome is not None
    assert outcome.given_up


def test_a_child_process_that_was_killed_before_its_start_is_not_started(tmp_path: Path) -> None:
    """Its error says that nothing failed; after `reset` it starts again."""
    child = ChildProcess()
    child.kill()
    with pytest.raises(ExportAbandonedError):
        child.run(tmp_path, urgent=True)
    child.reset()
    child.require_not_killed()


def test_a_child_process_that_fails_without_a_word_is_named_by_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the tree, as every failed export has one."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ExportWorkerError, match="ended with status 1"):
        ChildProcess().run(tmp_path, urgent=True)


def test_an_export_is_published_although_its_loss_cannot_be_computed(
    tmp_path: Path, chosen: Settings, pipeline: Any
) -> None:
    """A loss of the user's may fail, also with an exception that has no text."""

    def fail(*_: Any) -> Any:
        raise ValueError

    exporter = _exporter(tmp_path, chosen, pipeline, hollow)
    exporter._freeze = fail
    outcome = _export(exporter, _snapshot(chosen, pipeline))
    assert (outcome.error, outcome.losses) == ("", None)


def test_a_version_that_cannot_be_pruned_is_no_failed_export(
    tmp_path: Path, chosen: Settings, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is out; counted as a failure it would be built again and again."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Versions, "prune", refuse)
    exporter = _exporter(tmp_path, chosen, pipeline, hollow)
    assert _export(exporter, _snapshot(chosen, pipeline)).error == ""
    assert exporter.numbers() == [1]


def test_a_machine_that_stands_still_is_published_too(tmp_path: Path) -> None:
    """Its newest answers hardly vary, so that rounding is many times their spread; no reason to fail an export."""
    random = np.random.default_rng(0)

    def record(speed: float, load: float) -> bytes:
        return json.dumps({"a": speed, "b": load, "c": 0.0, "y": speed * load * 10.0, "k": "m", "t": 0.0}).encode()

    script = [record(random.uniform(500, 3000), random.uniform()) for _ in range(1500)]
    script += [record(1e-3 * random.normal(), 0.0) for _ in range(600)]
    options = {"task": {"kind": "regression", "duplicates": "keep"}, "export": {"formats": ["saved_model", "tflite"]}}
    learning = {"optimizer": {"kind": "adam", "learning_rate": 0.003}}
    learned(tmp_path, script=script, learning=learning, model={"kind": "mlp"}, **options)


def test_versions_are_pruned_although_latest_cannot_be_moved(
    tmp_path: Path, chosen: Settings, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup that was restored with its links followed has a folder of that name: the disk must not fill up."""
    monkeypatch.setattr(versions, "YOUNG_S", 0.0)
    exporter = _exporter(tmp_path, chosen, pipeline, hollow)
    (tmp_path / "latest").mkdir()
    for _ in range(chosen.export.keep + 3):
        assert "nothing else may have that name" in _export(exporter, _snapshot(chosen, pipeline)).error
    assert len(exporter.numbers()) == chosen.export.keep


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ({"y": np.full((9, 1), np.nan, np.float32)}, "not finite"),
        ({"z": np.ones((9, 1), np.float32)}, "outputs are"),
        ({"y": np.ones((8, 1), np.float32)}, "shape"),
        ({"y": np.ones((9, 1), np.float32) * 1.01}, "differs"),
    ],
)
def test_verification_refuses_what_is_wrong(got: dict[str, Any], message: str) -> None:
    """Missing, misshapen, infinite and different answers each have their message."""
    with pytest.raises(VerificationError, match=message):
        wanted = {"y": np.ones((9, 1), np.float32)}
        largest_difference("here", got, wanted, spread_of(wanted), tolerance=1e-4)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_verification_is_as_strict_for_targets_of_any_size(scale: float) -> None:
    """A difference is one of standard deviations, whatever the unit."""
    wanted = {"prediction": np.linspace(1.0, 2.0, 10, dtype=np.float32)[:, None] * np.float32(scale)}
    spreads = spread_of(wanted)
    for share, accepted in ((0.009, True), (0.012, False)):
        got = {"prediction": wanted["prediction"] + np.float32(share * spreads["prediction"][0])}
        with contextlib.nullcontext() if accepted else pytest.raises(VerificationError, match="differs"):
            largest_difference("here", got, wanted, spreads, tolerance=0.01)


def test_every_format_that_may_be_configured_is_registered() -> None:
    """And every one that is registered may be configured."""
    assert sorted(get_args(Format)) == sorted(EXPORTERS)


def _is_there(pid: int) -> bool:
    """Whether the process runs, or is stopped; one that ended and waits to be fetched does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux' own")
def test_a_killed_parent_takes_its_stopped_child_along(tmp_path: Path) -> None:
    """From its first sign of life on the child may be stopped, and then only the kernel can end it."""
    program = f"""
import os, signal, subprocess, sys
command = [sys.executable, "-m", "learnd.export_worker.bootstrap", str(os.getpid()), {str(tmp_path)!r}]
child = subprocess.Popen(command, stdout=subprocess.PIPE)
child.stdout.readline()
child.send_signal(signal.SIGSTOP)
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    until(lambda: not _is_there(int(done.stdout)), what="the end of the child", timeout_s=10)


def test_a_child_whose_parent_is_gone_ends_at_once(tmp_path: Path) -> None:
    """It was killed before the child could ask for its signal."""
    command = [sys.executable, "-m", "learnd.export_worker.bootstrap", "1", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the parent process has ended" in done.stderr
