"""Crashes at every point of a save, failing disks and damage, drawn at random: what was acknowledged is never lost.

The learner is a toy whose state is a function of the offset alone, so that any state can be told right from wrong; the
checkpoints and the file of predictions are the real ones. The whole daemon is killed in `tests/integration`.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from learnd.checkpoint import files as checkpoint_files
from learnd.checkpoint.checkpointer import Checkpoints, Saved
from learnd.core import crash_points
from learnd.core.errors import StateDamagedError
from learnd.core.types import TopicPartition
from learnd.sinks.files import LinesFile

PARTITION = TopicPartition("t", 0)
POINTS = (
    "checkpoint.before-checksums",
    "checkpoint.before-rename",
    "checkpoint.before-index",
    "checkpoint.after-save-before-commit",
    "checkpoint.half-removed",
)


class Killed(BaseException):
    """In place of SIGKILL: no handler of ours catches it, and nothing is cleaned up."""


@contextmanager
def killed_at(point: str) -> Iterator[None]:
    """Inside, whoever reaches *point* goes no further."""

    def reached(here: str) -> None:
        if here == point:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crash_points, "reached", reached)
        yield


@contextmanager
def failing(name: str, number: int, *, after: int) -> Iterator[None]:
    """Inside, ``os.<name>`` fails with the error *number* from its call *after* on."""
    real: Callable[..., Any] = getattr(os, name)
    calls = 0

    def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, fail)
        yield


def _spoil(path: Path, how: str, at: float) -> None:
    data = bytearray(path.read_bytes())
    position = min(int(at * len(data)), len(data) - 1)
    if how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(data[:position])
    else:
        data[position] ^= 1 << int(at * 8) % 8
        path.write_bytes(data)


class FaultyLife(RuleBasedStateMachine):
    """Learning, saving, crashing, failing and starting again, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.acknowledged = 0

    @initialize(point=st.sampled_from([None, *POINTS]))
    def first_start(self, point: str | None) -> None:
        """The state of the start is saved before anything is learned; that save too may be cut off."""
        if point is not None:
            with killed_at(point):
                self.start()
            self._end()
        self.start()

    def start(self) -> None:
        """A process that begins, the first or a later one."""
        self.offset = 0
        self.total = tf.Variable(0, dtype=tf.int64)
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints", keep=2, variables={"total": self.total}, fingerprint={"model": "toy"}
        )
        self.lines = LinesFile(self.folder / "lines.jsonl", key="predictions.path")
        self.checkpoints.open()
        state = self.checkpoints.restore()
        self.lines.open()
        if state is not None:
            self.offset = state["offset"]
            self.lines.restore(state["lines"])
        else:
            self._save()
        assert int(self.total) == sum(range(self.offset)), "learned twice, or lost"

    def _save(self) -> Saved | None:
        state = {"offset": self.offset, "lines": self.lines.state()}
        self.checkpoints.begin(state, {PARTITION: self.offset}, self.lines.flush)
        self.checkpoints.wait()
        outcome = self.checkpoints.outcome()
        if outcome is not None and outcome.error is None:
            self.acknowledged = self.offset
        return outcome

    def _end(self) -> None:
        """What the kernel does at the end of a process."""
        self.checkpoints.wait()
        assert self.lines._file is not None
        self.lines._file.close()

    @rule(count=st.integers(1, 9))
    def learn(self, count: int) -> None:
        for value in range(self.offset, self.offset + count):
            self.total.assign_add(value)
            self.lines.append([value])
        self.offset += count

    @rule()
    def save(self) -> None:
        outcome = self._save()
        assert outcome is not None
        assert outcome.error is None

    @rule(point=st.sampled_from(POINTS))
    def crash_in_a_save(self, point: str) -> None:
        """What was not acknowledged may be there or not; what was must be."""
        with killed_at(point):
            self._save()
        self._end()
        self.start()
        assert self.offset >= self.acknowledged

    @rule()
    def crash(self) -> None:
        self._end()
        self.start()
        assert self.offset >= self.acknowledged

    @rule(
        name=st.sampled_from(["rename", "fsync", "mkdir"]),
        number=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS]),
        after=st.integers(0, 6),
    )
    def save_on_a_failing_disk(self, name: str, number: int, after: int) -> None:
        """Whatever fails, an outcome says so, and the next save succeeds; a lost file of lines needs a restart."""
        with failing(name, number, after=after + (name == "fsync")):  # the first fsync is that of the lines
            outcome = self._save()
        assert outcome is not None

    @rule(number=st.sampled_from([errno.ENOSPC, errno.EIO]))
    def lose_the_lines(self, number: int) -> None:
        """An fsync of the lines that failed: no later save may trust them, and a restart makes them anew."""
        with failing("fsync", number, after=0):
            outcome = self._save()
        assert outcome is not None
        assert outcome.error is not None
        again = self._save()
        assert again is not None
        assert again.error is not None, "a second fsync that succeeds proves nothing"
        self._end()
        self.start()
        assert self.offset >= self.acknowledged

    @precondition(lambda self: len(checkpoint_files.numbers(self.folder / "checkpoints")) >= 2)
    @rule(how=st.sampled_from(["gone", "empty", "truncated", "flipped"]), at=st.floats(0, 0.999), which=st.integers(0))
    def damage_the_newest(self, how: str, at: float, which: int) -> None:
        """The one before it is used; its offset is what the next start goes on from."""
        directory = self.folder / "checkpoints"
        *_, before, newest = checkpoint_files.numbers(directory)
        files = [path for path in sorted(directory.glob(f"ckpt-{newest}.*")) if path.suffix != ".json" or how != "gone"]
        left = self._offset_of(before)
        self._end()
        _spoil(files[which % len(files)], how, at)
        self.start()
        assert self.checkpoints.damaged == (newest,)
        assert self.offset == left
        self.acknowledged = self.offset

    def _offset_of(self, number: int) -> int:
        summary = checkpoint_files.read_summary(self.folder / "checkpoints", number)
        assert summary is not None
        return int(summary["offsets"][0][2])

    @invariant()
    def nothing_is_acknowledged_that_is_not_saved(self) -> None:
        directory = self.folder / "checkpoints"
        if self.acknowledged:
            newest = checkpoint_files.numbers(directory)[-1]
            assert checkpoint_files.damage(directory, newest) == ""
            assert self._offset_of(newest) >= self.acknowledged

    def teardown(self) -> None:
        """One last start: the file of lines holds every line up to the offset, once."""
        if hasattr(self, "lines"):
            self._end()
            self.start()
            self._end()
            text = (self.folder / "lines.jsonl").read_text()
            lines = [json.loads(line) for line in text.splitlines()]
            assert lines == list(range(self.offset))
        shutil.rmtree(self.folder)


FaultyLife.TestCase.settings = hypothesis_settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes; a run of twenty steps can be read as it is
)
TestFaultyLife = FaultyLife.TestCase
TestFaultyLife.pytestmark = [pytest.mark.filterwarnings("ignore")]


def test_the_points_of_the_state_machine_are_all_that_there_are() -> None:
    """A new point in the code of checkpoints is drawn too."""
    root = Path(checkpoint_files.__file__).parent
    text = "".join((root / name).read_text() for name in ("checkpointer.py", "files.py"))
    assert sorted(part.split('"')[0] for part in text.split('crash_points.reached("')[1:]) == sorted(POINTS)


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    """Never a fresh start in silence."""
    total = tf.Variable(0, dtype=tf.int64)
    checkpoints = Checkpoints(tmp_path, keep=2, variables={"total": total}, fingerprint={})
    checkpoints.open()
    for _ in range(2):
        checkpoints.begin({}, {}, lambda: None)
        checkpoints.wait()
    for path in tmp_path.glob("*.index"):
        path.unlink()
    again = Checkpoints(tmp_path, keep=2, variables={"total": total}, fingerprint={})
    again.open()
    with pytest.raises(StateDamagedError, match="ckpt-2, ckpt-1"):
        again.restore()
