"""A full, failing or read-only disk: nothing is committed past the last durable state, and learning recovers."""

import errno
import os
import re
import subprocess
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from learnd.checkpoint.checkpointer import Checkpoints, Saved
from learnd.checkpoint.reading import read_arrays
from learnd.config.settings import CheckpointSettings
from learnd.core.errors import FileLostError, SaveFailedError
from learnd.core.schedule import IntervalTrigger
from learnd.core.types import TopicPartition
from learnd.observability.metrics import Metrics
from learnd.runtime.loop import Pipeline, run
from learnd.runtime.saving import Saving
from learnd.sinks import files
from learnd.sinks.files import LinesFile
from learnd.sources.memory import MemorySource, Pause
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import fill, readings, settings, small_disk
from tests.unit.test_loop import NoExports

pytestmark = pytest.mark.usefixtures("shared_traces")

PARTITION = TopicPartition("memory", 0)


class Disk:
    """Every fsync fails with ``error`` while there is one."""

    error: int | None = None


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    it, real = Disk(), os.fsync

    def fsync(descriptor: int) -> None:
        if it.error is not None:
            raise OSError(it.error, os.strerror(it.error))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return it


def _checkpoints(folder: Path, numbers: Any) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=2, variables={"numbers": numbers}, fingerprint={})
    checkpoints.open()
    return checkpoints


def _save(checkpoints: Checkpoints, value: int) -> SaveFailedError | None:
    checkpoints.begin({"value": value}, {PARTITION: value}, lambda: None)
    checkpoints.wait()
    outcome = checkpoints.outcome()
    assert outcome is not None
    return outcome.error


def test_at_any_room_left_a_save_is_whole_or_refused(tmp_path: Path) -> None:
    """From no room at all to room enough, page by page: what is called saved restores, else the one before does."""
    numbers = tf.Variable(np.zeros(16_000, np.float32))  # 16 pages
    with small_disk(tmp_path / "disk") as disk:
        checkpoints = _checkpoints(disk / "checkpoints", numbers)
        assert _save(checkpoints, 0) is None
        outcomes = []
        expected = 0
        for pages in range(0, 40, 2):
            filler = fill(disk, leave_bytes=pages * 4096)
            numbers.assign(np.full(16_000, pages + 1, np.float32))
            refused = _save(checkpoints, pages + 1) is not None
            outcomes.append(refused)
            filler.unlink()
            expected = expected if refused else pages + 1
            again = tf.Variable(tf.zeros_like(numbers))
            assert _checkpoints(disk / "checkpoints", again).restore() == {"value": expected}
            assert set(again.numpy().tolist()) == {float(expected)}
        assert outcomes[0]
        assert not outcomes[-1]
        assert outcomes == sorted(outcomes, reverse=True), "what did not fit leaves nothing behind that takes room"


def test_a_disk_that_becomes_read_only_keeps_the_old_and_takes_the_new_later(tmp_path: Path) -> None:
    """EROFS, as a kernel answers after an error of the file system."""
    numbers = tf.Variable(np.zeros(10, np.float32))
    with small_disk(tmp_path / "disk") as disk:
        checkpoints = _checkpoints(disk / "checkpoints", numbers)
        assert _save(checkpoints, 1) is None
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for _ in range(3):
            error = _save(checkpoints, 2)
            assert error is not None
            assert "Read-only" in str(error)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert _checkpoints(disk / "checkpoints", numbers).restore() == {"value": 1}
        assert _save(checkpoints, 3) is None
        assert _checkpoints(disk / "checkpoints", numbers).restore() == {"value": 3}


def test_saves_that_were_not_durable_push_out_none_that_was(tmp_path: Path, disk: Disk) -> None:
    """However many fail: pruning counts what is known to be on the disk."""
    numbers = tf.Variable(np.zeros(10, np.float32))
    checkpoints = _checkpoints(tmp_path, numbers)
    assert _save(checkpoints, 1) is None
    disk.error = errno.EIO
    for _ in range(5):
        error = _save(checkpoints, 2)
        assert error is not None
        assert "Input/output error" in str(error)
    assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-1.index"]
    disk.error = None
    assert _checkpoints(tmp_path, numbers).restore() == {"value": 1}


def _pipeline(folder: Path, source: MemorySource, **sections: Any) -> Pipeline:
    pipeline = make_pipeline(settings(folder, learning={"compile": False}, **sections), source=source)
    pipeline.publishing.exporter = NoExports()  # type: ignore[assignment]
    return pipeline


def test_so_many_failures_in_a_row_end_learning(tmp_path: Path, disk: Disk) -> None:
    """The error says why and what to do; nothing that is not saved was acknowledged."""
    source = MemorySource([*readings(200), Pause(10**9)])
    pipeline = _pipeline(tmp_path, source, checkpoint={"every_samples": 10, "max_failures": 3, "retry_seconds": 0.01})
    seen = []

    def on_batch() -> None:
        if pipeline.progress.samples:
            disk.error = errno.ENOSPC
        seen.append((pipeline.saving.failures, *pipeline.readiness()))

    with pytest.raises(SaveFailedError, match=r"in 3 attempts .*max_failures.*No space left.*make room"):
        run(pipeline, stopping=lambda: False, on_batch=on_batch)
    assert all(ready == (failures == 0) for failures, ready, _ in seen)
    assert any("No space left" in why for _, _, why in seen)
    saved = read_arrays(tmp_path / "checkpoints")[1]["progress"]["positions"]
    assert [row[:3] for row in saved] == [["memory", 0, source.acknowledged[-1][PARTITION]]]


def test_a_full_disk_ends_learning_by_time_and_not_by_count() -> None:
    """A hundred quick failures are none too many; an hour of them is. A success in between starts the hour again."""
    now_s, outcomes = [0.0], deque[Saved]()
    trigger = IntervalTrigger(seconds=1.0, samples=None, clock=lambda: now_s[0])
    checkpoints = SimpleNamespace(outcome=lambda: outcomes.popleft() if outcomes else None)
    saving = Saving(
        checkpoints,  # type: ignore[arg-type]
        trigger=trigger,
        retry=trigger,
        give_up_s=CheckpointSettings().give_up_seconds,
        max_failures=CheckpointSettings().max_failures,
        metrics=Metrics(),
        clock=lambda: now_s[0],
    )

    full = SaveFailedError("No space left on device")

    def attempt(at_s: float, error: SaveFailedError | None = full) -> None:
        now_s[0] = at_s
        outcomes.append(Saved({}, 1, 0.0, 0, error))
        saving.collect(0)

    for at_s in range(100):
        attempt(0.1 * at_s)
    attempt(3000.0)
    attempt(3500.0, None)
    for at_s in range(3600, 7200, 10):
        attempt(at_s)
    with pytest.raises(SaveFailedError, match=r"for 3600 s, in 361 attempts .*give_up_seconds.*No space left"):
        attempt(7200.0)


def test_a_full_disk_is_named_without_the_words_of_tensorflow(tmp_path: Path) -> None:
    """The place, and the reason, for each of the files that TensorFlow writes."""
    with small_disk(tmp_path / "disk") as disk:
        numbers = tf.Variable(np.zeros(16_000, np.float32))
        checkpoints = _checkpoints(disk / "checkpoints", numbers)
        for pages in range(0, 16, 4):
            filler = fill(disk, leave_bytes=pages * 4096)
            error = _save(checkpoints, pages)
            filler.unlink()
            assert re.fullmatch(r"\S+/ckpt-\d+: No space left on device", str(error)), error


def test_without_a_bound_learning_goes_on_and_recovers(tmp_path: Path, disk: Disk) -> None:
    """Red while it cannot save, green once it could; then all that was learned meanwhile is safe."""
    source = MemorySource([*readings(200), Pause(10**9)])
    checkpoint = {"every_samples": 10, "give_up_seconds": None, "retry_seconds": 0.01}
    pipeline = _pipeline(tmp_path, source, checkpoint=checkpoint)
    value = pipeline.metrics.registry.get_sample_value
    failures = [0.0]

    def on_batch() -> None:
        failures.append(value("learnd_checkpoint_consecutive_failures") or 0.0)
        assert pipeline.readiness()[0] is (failures[-1] == 0.0)
        if pipeline.progress.samples and max(failures) < 8:
            disk.error = errno.EIO
        elif max(failures) >= 8:
            disk.error = None

    def recovered() -> bool:
        return max(failures) >= 8 and failures[-1] == 0.0

    run(pipeline, stopping=recovered, on_batch=on_batch)
    assert source.acknowledged[-1] == {PARTITION: 200}
    assert (value("learnd_checkpoint_failures_total") or 0) >= 8


def test_a_full_disk_under_the_lines_loses_and_repeats_none(tmp_path: Path) -> None:
    """They wait in memory, flush says so, and they follow in order."""
    with small_disk(tmp_path / "disk") as disk:
        lines = LinesFile(disk / "lines.jsonl", key="predictions.path")
        lines.open()
        lines.append(range(100))
        lines.flush()
        filler = fill(disk)
        lines.append(range(100, 5000))
        with pytest.raises(OSError, match="No space left"):
            lines.flush()
        state = lines.state()
        written = (disk / "lines.jsonl").read_text().count("\n")
        assert lines.pending() == 5000 - written > 0
        filler.unlink()
        lines.append(range(5000, 5100))
        lines.flush()
        assert lines.pending() == 0
        text = (disk / "lines.jsonl").read_text()
        assert text == "".join(f"{number}\n" for number in range(5100))
        assert state["bytes"] == len("".join(f"{number}\n" for number in range(5000)))
        lines.close()


def test_lines_do_not_wait_in_memory_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound it is an error that names the file and the way out."""
    monkeypatch.setattr(files, "MAX_WAITING_BYTES", 1000)
    with small_disk(tmp_path / "disk") as disk:
        lines = LinesFile(disk / "lines.jsonl", key="predictions.path")
        lines.open()
        fill(disk)
        with pytest.raises(SaveFailedError, match=r"predictions\.path: .*lines\.jsonl.*make room"):
            lines.append(range(10_000))
        lines.close()


def test_an_fsync_of_the_lines_that_failed_is_never_trusted_again(tmp_path: Path, disk: Disk) -> None:
    """The kernel tells such an error once and drops the data; the next fsync would succeed."""
    lines = LinesFile(tmp_path / "lines.jsonl", key="predictions.path")
    lines.open()
    lines.append([1])
    disk.error = errno.EIO
    with pytest.raises(FileLostError, match="start again"):
        lines.flush()
    disk.error = None
    with pytest.raises(FileLostError):
        lines.flush()
    lines.close()


def test_a_lost_file_of_lines_ends_learning_at_once(tmp_path: Path, disk: Disk) -> None:
    """No number of attempts could help; a restart takes the file up from the last checkpoint."""
    path = tmp_path / "predictions.jsonl"
    sections = {"predictions": {"path": str(path)}, "checkpoint": {"every_samples": 10, "give_up_seconds": None}}
    pipeline = _pipeline(tmp_path / "data", MemorySource([*readings(100), Pause(10**9)]), **sections)

    def on_batch() -> None:
        if pipeline.progress.samples:
            disk.error = errno.EIO

    with pytest.raises(FileLostError, match=r"predictions\.jsonl could not be made durable"):
        run(pipeline, stopping=lambda: False, on_batch=on_batch)
    disk.error = None
    again = _pipeline(tmp_path / "data", MemorySource(readings(100)), **sections)
    run(again, stopping=lambda: False)
    assert len(path.read_text().splitlines()) == again.progress.samples == 100


def test_all_that_a_checkpoint_is_was_synced_before_its_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of it, and every folder that names one, up to the first that was there before."""
    synced: set[int] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    directory = tmp_path / "data" / "checkpoints"
    assert _save(_checkpoints(directory, tf.Variable([1.0])), 1) is None
    paths = [*directory.glob("ckpt-1.*"), directory, directory.parent, tmp_path]
    assert len(paths) == 6
    assert [str(path) for path in paths if path.stat().st_ino not in synced] == []
