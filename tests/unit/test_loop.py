"""The loop and its recovery, in one process, with a scripted source."""

import contextlib
import json
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.checkpoint import state_codec
from learnd.checkpoint.reading import read_arrays
from learnd.cli import run as cli
from learnd.core import crash_points
from learnd.core.errors import ConfigError, ExportError, SaveFailedError
from learnd.core.snapshot import Snapshot
from learnd.core.types import TopicPartition, offsets_of
from learnd.export.publisher import Exported
from learnd.runtime import loop
from learnd.runtime.loop import Pipeline, run
from learnd.runtime.reader import BATCH_RECORDS
from learnd.sources.memory import Crash, Item, MemorySource, Pause, ScriptedCrash
from learnd.wiring.pipeline import make_pipeline
from tests.support.exports import hollow
from tests.support.helpers import SAVED_MODEL, readings, same_arrays, settings
from tests.unit.test_checkpoint_faults import POINTS, Killed

pytestmark = pytest.mark.usefixtures("shared_traces")

PARTITION = TopicPartition("memory", 0)


class NoExports:
    """Takes snapshots and publishes nothing: what is tested here is not the exporter."""

    enabled = True

    def __init__(self, newest_samples: int = 0) -> None:
        self.snapshots: list[Snapshot] = []
        self._newest_samples = newest_samples

    def numbers(self) -> list[int]:
        return []

    def newest_samples(self, *, above: int = 0) -> int:
        return self._newest_samples

    def newest_number(self) -> int:
        return 0

    def champion(self, *, above: int) -> None:
        return None

    def held(self) -> bool:
        return False

    def refusal(self, challenger: Snapshot) -> None:
        return None

    def open(self) -> None: ...

    def begin(self, snapshot: Snapshot, *, urgent: bool = False) -> None:
        self.snapshots.append(snapshot)

    def busy(self) -> bool:
        return False

    def wait(self, timeout_s: float) -> bool:
        return True

    def abandon(self) -> None: ...

    def outcome(self) -> Exported | None:
        return None

    def uploaded(self) -> None:
        return None


def _pipeline(folder: Path, source: MemorySource, **sections: Any) -> Pipeline:
    pipeline = _make(folder, source, **sections)
    pipeline.publishing.exporter = NoExports()  # type: ignore[assignment]
    return pipeline


def _make(folder: Path, source: MemorySource, **sections: Any) -> Pipeline:
    """Without XLA, as it starts in a second rather than three; what is tested here is not the update."""
    learning = {"compile": False, "mode": "per_sample", **sections.pop("learning", {})}
    return make_pipeline(settings(folder, learning=learning, **sections), source=source)


def _run(folder: Path, script: Iterable[Any], **sections: Any) -> tuple[Pipeline, MemorySource]:
    """Runs *script* to its end, starting again after every crash in it, as an operator's service manager would."""
    source = MemorySource(script)
    while True:
        pipeline = _pipeline(folder, source, **sections)
        try:
            run(pipeline, stopping=lambda: False)
        except ScriptedCrash:
            continue
        return pipeline, source


def _state(folder: Path) -> tuple[dict[str, Any], bytes]:
    arrays, state = read_arrays(folder / "checkpoints")
    return arrays, state_codec.encode(state)


SECTIONS: dict[str, Any] = {
    "decode": {"kind": "json", "key": "k", "time": "t", "time_numbers": "any"},
    "target": None,
    "task": {"kind": "forecast", "window": 3},
    "learning": {"mode": "micro_batch", "batch_size": 6, "compile": False},
    "checkpoint": {"every_seconds": None, "every_samples": 40},
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    _run(folder, readings(300), **SECTIONS)
    return _state(folder)


class Killer:
    """Ends a save at the *nth* time that *point* is reached, and with it the life of that pipeline."""

    def __init__(self, point: str, nth: int) -> None:
        self._point = point
        self._left = nth
        self.struck = False

    def reached(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                self.struck = True
                raise Killed

    def on_batch(self) -> None:
        if self.struck:
            raise ScriptedCrash


@hypothesis_settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    crashes=st.lists(st.integers(0, 300), min_size=0, max_size=2),
    point=st.sampled_from(POINTS),
    nth=st.integers(1, 3),
)
def test_any_crash_ends_in_the_same_state(
    crashes: list[int],
    point: str,
    nth: int,
    uninterrupted: tuple[dict[str, Any], bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Wherever the stream breaks off, or a save is cut off, arrays and host state end equal to the last bit."""
    script: list[Any] = readings(300)
    for at in sorted(crashes, reverse=True):
        script.insert(at, Crash())
    folder = tmp_path_factory.mktemp("crashed")
    source = MemorySource(script)
    killer = Killer(point, nth)
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ScriptedCrash):
        patch.setattr(crash_points, "reached", killer.reached)
        run(_pipeline(folder, source, **SECTIONS), stopping=lambda: False, on_batch=killer.on_batch)
    _run(folder, script, **SECTIONS)
    arrays, state = _state(folder)
    assert same_arrays(arrays, uninterrupted[0]) == []
    assert state == uninterrupted[1]


def test_an_exception_saves_nothing(tmp_path: Path) -> None:
    """After an error the last checkpoint counts (here that of the start): what may be half done is never written."""
    pipeline = _pipeline(tmp_path, MemorySource([*readings(30), Crash()]))
    with pytest.raises(ScriptedCrash):
        run(pipeline, stopping=lambda: False)
    assert pipeline.progress.samples == 30
    assert read_arrays(tmp_path / "checkpoints")[1]["progress"]["samples"] == 0


def test_offsets_are_acknowledged_after_the_save_only(tmp_path: Path) -> None:
    """What the source hears is what a checkpoint holds."""
    _, source = _run(tmp_path, readings(250))
    assert source.acknowledged[-1] == {PARTITION: 250}
    saved = read_arrays(tmp_path / "checkpoints")[1]["progress"]["positions"]
    assert saved == [["memory", 0, 250, -1, None]]


def test_a_failed_last_save_is_an_error_and_acknowledges_nothing(tmp_path: Path) -> None:
    """The exit code must tell that the state is not on disk."""
    source = MemorySource(readings(20))
    pipeline = _pipeline(tmp_path, source)

    def fail() -> None:
        if pipeline.progress.samples:  # the save of the start succeeds
            raise OSError("no space left")

    pipeline.predictions.flush = fail  # type: ignore[method-assign]
    with pytest.raises(SaveFailedError, match="no space left"):
        run(pipeline, stopping=lambda: False)
    assert source.acknowledged == [{PARTITION: 0}]
    assert pipeline.metrics.registry.get_sample_value("learnd_checkpoint_failures_total") == 1


def test_bad_records_are_written_to_the_file_once_each_across_a_crash(tmp_path: Path) -> None:
    """With Kafka Connect's header names, whole, in order, and not twice though the stream was read twice."""
    good = readings(60)
    script: list[Any] = [*good[:20], b"junk", *good[20:40], None, Crash(), Item(b"\xff", key=b"\xfe"), *good[40:]]
    rejects = tmp_path / "rejects.jsonl"
    sections = {"dead_letter": {"path": str(rejects)}, "checkpoint": {"every_samples": 10}}
    pipeline, _ = _run(tmp_path, script, **sections)
    lines = [json.loads(line) for line in rejects.read_text().splitlines()]
    prefix = "__connect.errors."
    told = [(line["headers"][f"{prefix}exception.class.name"], line["headers"][f"{prefix}offset"]) for line in lines]
    assert told == [("unparsable", "20"), ("tombstone", "41"), ("bad_utf8", "42")]
    assert lines[0]["headers"][f"{prefix}topic"] == "memory"
    assert lines[0]["headers"][f"{prefix}partition"] == "0"
    assert [line.get("value", line.get("value_base64")) for line in lines] == ["junk", None, "/w=="]
    assert lines[2]["key_base64"] == "/g=="
    assert pipeline.progress.samples == 60
    assert pipeline.progress.records == 63


@pytest.mark.parametrize("window", [None, 2])
def test_a_poll_of_bad_records_alone_does_not_disturb_a_group_that_waits(window: int | None, tmp_path: Path) -> None:
    """It has no rows, and all the columns; weights of samples are one that not every stream has."""
    sections: dict[str, Any] = {
        "task": {"kind": "regression", "window": window},
        "learning": {"mode": "micro_batch", "batch_size": 4, "sample_weight": "w"},
    }
    good = [value.replace(b"{", b'{"w": 2.0, ') for value in readings(10)]
    pipeline, _ = _run(tmp_path, [*good[:3], Pause(), b"junk", Pause(), *good[3:]], **sections)
    assert (pipeline.progress.records, pipeline.progress.samples) == (11, 8)


@pytest.mark.parametrize("before", [True, False])
def test_weights_of_samples_may_come_and_go_while_a_group_waits(before: bool, tmp_path: Path) -> None:
    """What waits in the checkpoint has them or not; either goes on."""
    good = [value.replace(b"{", b'{"w": 2.0, ') for value in readings(12)]
    for count, weighted in ((6, before), (12, not before)):
        learning = {"mode": "micro_batch", "batch_size": 4, "sample_weight": "w" if weighted else None}
        pipeline, _ = _run(tmp_path, good[:count], learning=learning)
    assert pipeline.progress.samples == 12


@pytest.mark.parametrize("gone", ["rotated", "another one is configured"])
def test_lines_are_not_repeated_by_a_crash_right_after_their_file_changed(gone: str, tmp_path: Path) -> None:
    """The state of such a start is saved at once: until then nobody knows how long the file was."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    _run(tmp_path / "data", readings(40), predictions={"path": str(first)})
    if gone == "rotated":
        first.rename(tmp_path / "first.jsonl.1")
    else:
        second.write_bytes(first.read_bytes()[:5000] + b"\n")
    path = first if gone == "rotated" else second
    before = path.read_bytes() if path.exists() else b""
    source = MemorySource([*readings(60), Crash(), *readings(10, seed=1)])
    for _ in range(2):
        pipeline = _pipeline(tmp_path / "data", source, predictions={"path": str(path)})
        with contextlib.suppress(ScriptedCrash):
            run(pipeline, stopping=lambda: False)
    written = path.read_bytes()
    assert written.startswith(before)
    offsets = [json.loads(line)["offset"] for line in written[len(before) :].splitlines()]
    assert offsets == list(range(40, 70))


def test_bad_records_change_nothing_that_is_learned(tmp_path: Path) -> None:
    """The weights are those of the good records alone."""
    good = readings(100)
    _run(tmp_path / "clean", good)
    script = [item for record in good for item in (record, b'{"a": Infinity, "b": 1, "c": 1, "y": 1}')]
    pipeline, _ = _run(tmp_path / "dirty", script)
    assert same_arrays(_state(tmp_path / "clean")[0], _state(tmp_path / "dirty")[0]) == []
    value = pipeline.metrics.registry.get_sample_value
    assert value("learnd_records_rejected_total", {"reason": "not_finite"}) == 100
    assert value("learnd_records_consumed_total") == 200
    assert value("learnd_samples_learned_total") == 100
    assert value("learnd_compiled_retraces") == 0


def test_partitions_keep_their_own_offsets(tmp_path: Path) -> None:
    """Each goes on where it stood."""
    values = readings(90)
    script: list[Any] = [Item(value, partition=i % 3) for i, value in enumerate(values)]
    script.insert(50, Crash())
    pipeline, _ = _run(tmp_path, script, checkpoint={"every_samples": 10})
    assert pipeline.progress.samples == 90
    assert offsets_of(pipeline.progress.positions) == {TopicPartition("memory", p): 30 for p in range(3)}


def test_a_stop_learns_what_was_read_and_saves(tmp_path: Path) -> None:
    """Nothing that was learned is lost by a stop, and a pause in the stream does not hold it up."""
    source = MemorySource([*readings(40), Pause(10**9), *readings(40, seed=1)])
    pipeline = _pipeline(tmp_path, source)
    run(pipeline, stopping=lambda: pipeline.progress.samples == 40)
    assert read_arrays(tmp_path / "checkpoints")[1]["progress"]["samples"] == 40
    assert pipeline.publishing.exporter.snapshots[-1].samples == 40  # type: ignore[attr-defined]


@pytest.mark.parametrize(("exported", "snapshots"), [(40, 0), (0, 1)])
def test_a_start_without_records_exports_only_what_is_not_exported_yet(
    tmp_path: Path, exported: int, snapshots: int
) -> None:
    """An export that the last stop could not finish is made up for; one that is there is not repeated."""
    _run(tmp_path, readings(40))
    pipeline = _pipeline(tmp_path, MemorySource(readings(40)))
    pipeline.publishing.exporter = NoExports(exported)  # type: ignore[assignment]
    run(pipeline, stopping=lambda: False)
    assert pipeline.progress.samples == 40
    assert len(pipeline.publishing.exporter.snapshots) == snapshots  # type: ignore[attr-defined]
    assert pipeline.status.scores.samples == 40, "the judgement of before the restart"


def test_of_requests_during_an_export_the_newest_wins(tmp_path: Path) -> None:
    """One export at a time; what was asked for meanwhile, twice, is one further export, of the newest weights."""
    later = [
        [json.dumps({"a": 1.0, "b": 2.0, "c": 3.0, "k": f"new-{i}"}).encode(), *readings(10, seed=i)] for i in (1, 2)
    ]
    source = MemorySource([*readings(40), Pause(), *later[0], Pause(), *later[1]])
    task = {"kind": "classification", "classes": "dynamic"}
    pipeline = _make(tmp_path, source, target="k", task=task, export=SAVED_MODEL)
    release, building, built = threading.Event(), threading.Event(), []

    def build(folder: Path, urgent: bool) -> None:
        assert not building.is_set(), "one at a time"
        building.set()
        assert release.wait(60)
        request = json.loads((folder / ".request" / "request.json").read_text())
        built.append((request["manifest"]["samples"], len(request["manifest"]["classes"])))
        building.clear()

    pipeline.publishing.exporter._build = build  # type: ignore[method-assign]
    assert pipeline.open()
    try:
        _learn_until(pipeline, 40)
        assert pipeline.publishing.due(pipeline.progress.samples), "the first classes"
        pipeline.export()
        assert building.wait(60)
        for samples in (51, 62):
            _learn_until(pipeline, samples)
            assert not pipeline.publishing.due(pipeline.progress.samples), "one is under way"
        release.set()
        assert pipeline.publishing.exporter.wait(60)
        assert pipeline.publishing.exporter.outcome() is not None
        assert pipeline.publishing.due(pipeline.progress.samples), "asked for while the first one was under way"
        pipeline.export()
        assert pipeline.publishing.exporter.wait(60)
        assert not pipeline.publishing.due(pipeline.progress.samples), "both requests are answered"
    finally:
        release.set()
        pipeline.close()
    assert built == [(40, 3), (62, 5)]


def test_a_model_that_begins_afresh_is_published_again(tmp_path: Path) -> None:
    """Though it has learned less than the last export, which is that of the model whose checkpoints were taken away."""

    def learn(records: int) -> list[int]:
        pipeline = _make(tmp_path, MemorySource(readings(records)), export=SAVED_MODEL)
        pipeline.publishing.exporter._build = hollow  # type: ignore[method-assign]
        run(pipeline, stopping=lambda: False)
        return [json.loads(path.read_text())["samples"] for path in sorted(tmp_path.glob("exports/[0-9]*/*.json"))]

    assert learn(50) == [50]
    assert learn(50) == [50], "nothing new"
    shutil.rmtree(tmp_path / "checkpoints")
    assert learn(20) == [50, 20]
    assert learn(20) == [50, 20], "nothing new"
    assert learn(30) == [50, 20, 30]


def test_a_long_start_is_no_standstill(tmp_path: Path) -> None:
    """Compiling, or skipping what was learned of a large file, takes as long as it takes."""
    pipeline = _pipeline(tmp_path, MemorySource(readings(10)))
    assert cli.liveness(pipeline) == (True, "starting")
    assert pipeline.open()
    pipeline.collect_outcomes()
    assert cli.liveness(pipeline)[0]
    assert pipeline.status.beat_s is not None
    pipeline.status.beat_s -= cli.STALLED_S
    assert not cli.liveness(pipeline)[0]
    pipeline.close()


@pytest.mark.parametrize("stopped", [True, False])
def test_a_stream_that_ends_without_its_last_export_is_an_error(stopped: bool, tmp_path: Path) -> None:
    """Whoever ran it to the end waits for the export; all is saved. Who stops it has the next start to mend that."""
    pipeline = _make(tmp_path, MemorySource([*readings(20), *([Pause(10**9)] if stopped else [])]), export=SAVED_MODEL)

    def build(folder: Path, urgent: bool) -> None:
        raise RuntimeError("no such operator")

    pipeline.publishing.exporter._build = build  # type: ignore[method-assign]
    with contextlib.nullcontext() if stopped else pytest.raises(ExportError, match="the last export failed: no such"):
        run(pipeline, stopping=lambda: stopped and pipeline.progress.samples == 20)
    assert read_arrays(tmp_path / "checkpoints")[1]["progress"]["samples"] == 20


def test_without_formats_nothing_is_exported(tmp_path: Path) -> None:
    """Some want the predictions alone: no process is started, neither on the way nor at the end."""
    sections = {"export": {"every_samples": 10, "formats": []}}
    pipeline = _make(tmp_path, MemorySource(readings(40)), **sections)
    started: list[Path] = []
    pipeline.publishing.exporter._build = lambda folder, urgent: started.append(folder)  # type: ignore[method-assign]
    run(pipeline, stopping=lambda: False)
    assert pipeline.progress.samples == 40
    assert started == []
    assert pipeline.publishing.exporter.numbers() == []
    assert pipeline.metrics.registry.get_sample_value("learnd_export_failures_total") == 0


def test_exports_back_to_back_are_all_told(tmp_path: Path) -> None:
    """Where an export is due as soon as another is done, nobody settles in between: a failure must not go under."""
    script = [item for samples in (10, 10, 10) for item in (*readings(samples), Pause())]
    pipeline = _make(tmp_path, MemorySource(script), export=SAVED_MODEL)
    attempts = iter(range(10))

    def build(folder: Path, urgent: bool) -> None:
        if next(attempts) == 1:
            raise RuntimeError("no")
        (folder / "learnd.json").write_text('{"unavailable": {}, "samples": 0}')

    pipeline.publishing.exporter._build = build  # type: ignore[method-assign]
    assert pipeline.open()
    try:
        for samples in (10, 20, 30):
            _learn_until(pipeline, samples)
            pipeline.export()
            assert pipeline.publishing.exporter.wait(60)
        pipeline.collect_outcomes()
    finally:
        pipeline.close()
    value = pipeline.metrics.registry.get_sample_value
    assert (value("learnd_exports_total"), value("learnd_export_failures_total")) == (2, 1)
    assert pipeline.publishing.last is not None
    assert pipeline.publishing.last.samples == 30


@pytest.mark.parametrize("stopped", [False, True])
def test_the_last_export_has_the_time_it_takes_unless_a_stop_waits_for_it(
    stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that ends by itself ends with an export, however long its formats take; a stop has its 25 s."""
    monkeypatch.setattr(loop, "STOP_S", 0.0)
    pipeline = _make(tmp_path, MemorySource(readings(40)), export=SAVED_MODEL)
    polls, release, building = iter(range(10**9)), threading.Event(), threading.Event()

    def build(folder: Path, urgent: bool) -> None:
        building.set()
        if release.wait(60):
            (folder / "learnd.json").write_text('{"unavailable": {}, "samples": 40}')

    def stopping() -> bool:
        if building.is_set() and next(polls) == 3:  # the end waits for the export
            release.set()
            return stopped
        return False

    pipeline.publishing.exporter._build = build  # type: ignore[method-assign]
    run(pipeline, stopping=stopping)
    assert (pipeline.publishing.last is not None) is not stopped


def _learn_until(pipeline: Pipeline, samples: int) -> None:
    while pipeline.progress.samples < samples:
        batch = pipeline.reader.next(timeout_s=1.0)
        if batch is not None:
            pipeline.learn(batch)
    assert pipeline.progress.samples == samples


def test_a_partition_without_records_keeps_its_first_position(tmp_path: Path) -> None:
    """Where it began is saved with the rest, so that start_from is asked once in its life."""
    script = [*(Item(value, partition=0) for value in readings(10)), Crash(), Item(b"junk", partition=1)]
    source = MemorySource(script)
    with pytest.raises(ScriptedCrash):
        run(_pipeline(tmp_path, source), stopping=lambda: False)
    positions = read_arrays(tmp_path / "checkpoints")[1]["progress"]["positions"]
    assert ["memory", 1, 0, -1, None] in positions


def test_a_crash_before_the_first_checkpoint_repeats_no_prediction(tmp_path: Path) -> None:
    """The state of the start is saved too, with the length of the files."""
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"offset": "of an earlier life"}\n')
    _run(tmp_path / "data", [*readings(30), Crash()], predictions={"path": str(path)})
    offsets = [json.loads(line)["offset"] for line in path.read_text().splitlines()]
    assert offsets == ["of an earlier life", *range(30)]


def test_the_learning_rate_is_the_configurations_also_after_a_restart(tmp_path: Path) -> None:
    """A checkpoint does not bring the old one back."""
    _run(tmp_path, readings(20), learning={"optimizer": {"kind": "sgd", "learning_rate": 0.01}})
    pipeline, _ = _run(tmp_path, readings(20), learning={"optimizer": {"kind": "sgd", "learning_rate": 0.5}})
    optimizer = pipeline.model.learner._chunk._update_rows.optimizer  # type: ignore[attr-defined]
    assert float(optimizer.learning_rate) == 0.5


def test_an_option_that_adds_slots_is_a_change_not_damage(tmp_path: Path) -> None:
    """The error names the section; the checkpoint stays as it is."""
    _run(tmp_path, readings(20), learning={"optimizer": {"kind": "sgd"}})
    with pytest.raises(ConfigError, match=r"learning\.optimizer: .* lacks optimizer/.*momentum"):
        _run(tmp_path, readings(20), learning={"optimizer": {"kind": "sgd", "momentum": 0.9}})
    pipeline, _ = _run(tmp_path, readings(20), learning={"optimizer": {"kind": "sgd"}})
    assert pipeline.progress.samples == 20


def test_batches_shrink_for_a_slow_model_and_grow_for_a_quick_one(tmp_path: Path) -> None:
    """A stop waits for the end of a batch, so a batch may take half a second."""
    pipeline = _pipeline(tmp_path, MemorySource([]))
    first = pipeline.reader.batch_records
    pipeline.reader.pace(0, 0.001)
    assert pipeline.reader.batch_records == first, "nothing was learned, so nothing is known"
    pipeline.reader.pace(64, 0.001)
    assert pipeline.reader.batch_records == 2 * first
    for _ in range(20):
        pipeline.reader.pace(4096, 0.03)
    assert pipeline.reader.batch_records == BATCH_RECORDS
    pipeline.reader.pace(4096, 60.0)
    assert pipeline.reader.batch_records == 34
    pipeline.reader.pace(34, 60.0)
    assert pipeline.reader.batch_records == 1


@pytest.mark.parametrize("field", ["a", "y"])
def test_one_absurd_value_does_not_spoil_the_model(tmp_path: Path, field: str) -> None:
    """A finite outlier of 10^30, in a feature or the target: later samples are predicted as well as before."""
    good = readings(3000)
    absurd = json.dumps({**json.loads(good[0]), field: 1e30}).encode()
    path = tmp_path / "predictions.jsonl"
    sections = {"predictions": {"path": str(path)}, "learning": {"optimizer": {"kind": "adam", "learning_rate": 0.01}}}
    _run(tmp_path / "data", [*good[:1500], absurd, *good[1500:]], **sections)
    scores = [json.loads(line)["score"] for line in path.read_text().splitlines()]
    before, after = sum(scores[1000:1500]) / 500, sum(scores[2500:3000]) / 500
    assert after < 2 * before + 0.02


def test_predictions_tell_what_was_predicted_for_each_sample(tmp_path: Path) -> None:
    """One line a sample, with origin, key, time, prediction, truth and scores."""
    path = tmp_path / "predictions.jsonl"
    decode = {"kind": "json", "key": "k", "time": "t", "time_numbers": "any"}
    _run(tmp_path / "data", readings(30), predictions={"path": str(path)}, decode=decode)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["offset"] for line in lines] == list(range(30))
    truth = [json.loads(value)["y"] for value in readings(30)]
    assert [line["truth"]["y"] for line in lines] == pytest.approx(truth, rel=1e-6)
    assert (lines[4]["key"], lines[4]["time_s"]) == ("m1", 240.0)
    assert lines[-1]["score"] > 0
    assert "y" in lines[-1]["prediction"]


def test_reconstruction_predictions_tell_the_features(tmp_path: Path) -> None:
    """For an autoencoder, truth is the input."""
    path = tmp_path / "predictions.jsonl"
    sections = {"task": {"kind": "reconstruction"}, "target": None, "model": {"kind": "autoencoder"}}
    _run(tmp_path / "data", readings(20), predictions={"path": str(path)}, **sections)
    line = json.loads(path.read_text().splitlines()[-1])
    assert line["truth"]["a"] == pytest.approx(json.loads(readings(20)[-1])["a"], rel=1e-6)
    assert set(line["prediction"]) == {"a", "b", "c"}
