"""The one atomic state: weights, optimizer, averages, every component's state, and the offsets they belong to.

A save costs the learner only a reference to each variable's present value, which TensorFlow never changes
afterwards; the copying, writing and flushing to disk happen on a thread.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import tensorflow as tf

from learnd.checkpoint import files, state_codec
from learnd.core import crash_points
from learnd.core.errors import ConfigError, FileLostError, SaveFailedError, StateDamagedError
from learnd.core.fsync import make_folder
from learnd.core.types import Offsets, State, TopicPartition

log = structlog.get_logger()

_PREFIX = "variables/"


@dataclass(frozen=True, slots=True)
class Saved:
    """The outcome of one save."""

    offsets: Offsets
    number: int
    duration_s: float
    size_bytes: int
    error: SaveFailedError | None = None


class _HostState(tf.train.experimental.PythonState):  # type: ignore[misc]
    """The part of the state that is no variable."""

    def __init__(self) -> None:
        self.data = b""

    def serialize(self) -> bytes:
        return self.data

    def deserialize(self, string_value: bytes) -> None:
        self.data = string_value


class Checkpoints:
    """Saves and restores *variables* together with a host state, newest first.

    Parameters
    ----------
    directory : made if it is missing
    keep : how many checkpoints stay, at least 2
    variables : live TensorFlow or Keras variables, by a name that is the same in every process
    fingerprint : what the arrays depend on in the configuration; a checkpoint of another one is refused
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        variables: Mapping[str, Any],
        fingerprint: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._keep = keep
        self._live = {name: _resource(variable) for name, variable in variables.items()}
        self._fingerprint = dict(fingerprint)
        self._clock = clock
        # One thread for all saves: a new one each time takes another malloc arena, and memory creeps up for hours.
        self._worker = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="learnd-checkpoint")
        self._future: futures.Future[None] | None = None
        self._outcomes: deque[Saved] = deque()
        self._number = 0
        self.damaged: tuple[int, ...] = ()
        """The numbers of the newer checkpoints that `restore` had to pass over."""

    def open(self) -> None:
        """Make the directory, and take away what a crash left half done in it."""
        make_folder(self._directory)
        files.sweep(self._directory)
        self._shadow = {name: tf.Variable(live, trainable=False) for name, live in self._live.items()}
        # One graph call in place of a hundred eager reads: it took the stall of a save from 2.9 ms to 1.1.
        read = tf.function(lambda: {name: live.read_value() for name, live in self._live.items()}, autograph=False)
        self._read_all = read.get_concrete_function()
        self._host = _HostState()
        self._checkpoint = tf.train.Checkpoint(variables=self._shadow, host=self._host)
        # TensorFlow makes its counter at the first save; made now, what is restored and what is saved look the same.
        self._counter = self._checkpoint.save_counter
        self._number = max([self._number, *files.numbers(self._directory)])

    def restore(self) -> State | None:
        """Put the newest sound checkpoint into the live variables; returns its host state.

        None if there has never been one. Checksums are compared before TensorFlow touches a file. Unsound ones are
        set aside under another name, logged, and named in `damaged`.

        Raises
        ------
        StateDamagedError
            if there are checkpoints and none is sound.
        ConfigError
            if the checkpoint belongs to another configuration.
        """
        damaged: list[int] = []
        for number in reversed(files.numbers(self._directory)):
            path = files.prefix(self._directory, number)
            try:
                files.require_sound(self._directory, number)
                host = self._read(path)
            except ConfigError:
                raise
            except Exception as error:
                log.error("checkpoint_damaged", path=str(path), error=_first_line(error))
                damaged.append(number)
                continue
            self._require_same(host["fingerprint"])
            for name, live in self._live.items():
                live.assign(self._shadow[name])
            for unsound in damaged:
                files.set_aside(self._directory, unsound)
            self.damaged = tuple(damaged)
            state: State = host["state"]
            return state
        if damaged:
            names = ", ".join(f"ckpt-{number}" for number in damaged)
            raise StateDamagedError(
                f"{self._directory}: no checkpoint can be read ({names}). Restore one from a backup, or move the "
                "directory away to start afresh; learnd never forgets what it learned on its own account"
            )
        return None

    def _read(self, path: Path) -> dict[str, Any]:
        reader = tf.train.load_checkpoint(str(path))
        host = _read_host(reader)
        if host["fingerprint"] == self._fingerprint:
            self._require_same_arrays(reader)
            self._checkpoint.read(str(path)).assert_consumed()
        return host

    def _require_same_arrays(self, reader: Any) -> None:
        """Options of an optimizer can add and take away slots; that is a change, not damage."""
        shapes = reader.get_variable_to_shape_map()
        saved = {_plain_name(name): list(shape) for name, shape in shapes.items() if name.startswith(_PREFIX)}
        wanted = {name: list(variable.shape) for name, variable in self._shadow.items()}
        if changed := sorted(saved.keys() ^ wanted.keys()):
            raise self._changed(changed[0], f"{'lacks' if changed[0] in wanted else 'has'} {changed[0]}")
        if changed := sorted(name for name in saved if saved[name] != wanted[name]):
            name = changed[0]
            raise self._changed(name, f"has {name} of shape {saved[name]}, where the model now has {wanted[name]}")

    def _changed(self, name: str, what: str) -> ConfigError:
        section = "learning.optimizer" if name.startswith("optimizer/") else "model"
        return ConfigError(
            f"{section}: the checkpoint under {self._directory} {what}, so it was learned with other options, or other "
            "code; change them back, or use another data_dir"
        )

    def _require_same(self, saved: dict[str, Any]) -> None:
        changed = [key for key in self._fingerprint if saved.get(key) != self._fingerprint[key]]
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{key}: the checkpoints under {self._directory} were learned with {saved.get(key)}, the "
                f"configuration now says {self._fingerprint[key]}; change it back, or use another data_dir"
            )

    def begin(self, state: State, offsets: Offsets, flush: Callable[[], None]) -> None:
        """Start a save of everything as it is now. Returns at once, or after the save before it.

        *state* is encoded later: nothing in it may change any more.
        *flush* runs first on the saving thread: what the state takes for delivered must be.
        """
        self.wait()
        values = self._read_all()
        self._number += 1
        self._future = self._worker.submit(self._save, values, state, dict(offsets), self._number, flush)

    def wait(self) -> None:
        """Until no save is under way."""
        if self._future is not None:
            futures.wait([self._future])

    def busy(self) -> bool:
        """Whether a save is under way."""
        return self._future is not None and not self._future.done()

    def outcome(self) -> Saved | None:
        """The outcome of the oldest save that was not told yet; each is told once."""
        return self._outcomes.popleft() if self._outcomes else None

    def _save(
        self,
        values: Mapping[str, Any],
        state: State,
        offsets: Offsets,
        number: int,
        flush: Callable[[], None],
    ) -> None:
        started_s = self._clock()
        size_bytes = 0
        error: SaveFailedError | None = None
        try:
            flush()
            for name, value in values.items():
                self._shadow[name].assign(value)
            self._host.data = state_codec.encode({"fingerprint": self._fingerprint, "state": state})
            size_bytes = files.write(self._directory, number, _summary(state, offsets), self._write_arrays)
            crash_points.reached("checkpoint.after-save-before-commit")
            self._tidy()
        except FileLostError as failure:
            error = failure
        except Exception as failure:
            error = SaveFailedError(f"{files.prefix(self._directory, number)}: {_first_line(failure)}")
        self._outcomes.append(Saved(offsets, number, self._clock() - started_s, size_bytes, error))

    def _write_arrays(self, path: Path) -> None:
        self._checkpoint.write(str(path))

    def _tidy(self) -> None:
        """Only what is durable counts among those that stay; a disk that refuses is no failure of the save."""
        try:
            numbers = files.numbers(self._directory)
            kept = [f"ckpt-{number}" for number in numbers[-self._keep :]]
            # For `tf.train.latest_checkpoint`; nothing of ours reads that list.
            tf.compat.v1.train.update_checkpoint_state(str(self._directory), kept[-1], kept)
            for number in numbers[: -self._keep]:
                files.remove(self._directory, number)
        except (OSError, tf.errors.OpError) as error:
            log.warning("checkpoint_not_tidied", error=_first_line(error))


def _summary(state: State, offsets: Offsets) -> dict[str, Any]:
    """What people may ask of a checkpoint without TensorFlow."""
    progress = state.get("progress", {})
    counts = {name: progress[name] for name in ("records", "samples", "updates") if name in progress}
    return {**counts, "offsets": offsets_to_state(offsets)}


def newest_checkpoint(directory: Path) -> Path | None:
    """The prefix of the newest sound checkpoint in *directory*; None if there is no checkpoint.

    Raises
    ------
    StateDamagedError
        if there are checkpoints and none is sound.
    """
    numbers = files.numbers(directory)
    for number in reversed(numbers):
        if not files.damage(directory, number):
            return files.prefix(directory, number)
    if numbers:
        raise StateDamagedError(f"{directory}: none of the checkpoints {numbers} is sound; restore one from a backup")
    return None


def read_fingerprint(prefix: Path) -> dict[str, Any]:
    """What the checkpoint *prefix* says of the configuration that it was learned with."""
    fingerprint: dict[str, Any] = _read_host(tf.train.load_checkpoint(str(prefix)))["fingerprint"]
    return fingerprint


def read_arrays(directory: Path) -> tuple[dict[str, Any], State]:
    """The arrays by name, and the host state, of the newest checkpoint in *directory*; for tools and tests."""
    path = newest_checkpoint(directory)
    if path is None:
        raise StateDamagedError(f"{directory} holds no checkpoint")
    return read_checkpoint(path)


def read_checkpoint(prefix: Path) -> tuple[dict[str, Any], State]:
    """The same of one checkpoint."""
    reader = tf.train.load_checkpoint(str(prefix))
    arrays = {
        _plain_name(name): reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(_PREFIX)
    }
    state: State = _read_host(reader)["state"]
    return arrays, state


def _read_host(reader: Any) -> dict[str, Any]:
    host: dict[str, Any] = state_codec.decode(bytes(reader.get_tensor("host/.ATTRIBUTES/py_state")))
    return host


def offsets_to_state(offsets: Offsets) -> list[list[Any]]:
    """Offsets as plain lists.

    >>> offsets_from_state(offsets_to_state({TopicPartition("t", 0): 7}))
    {TopicPartition(topic='t', partition=0): 7}
    """
    return [[p.topic, p.partition, offset] for p, offset in sorted(offsets.items())]


def offsets_from_state(state: list[list[Any]]) -> dict[TopicPartition, int]:
    """The inverse of `offsets_to_state`."""
    return {TopicPartition(topic, partition): offset for topic, partition, offset in state}


def _plain_name(name: str) -> str:
    """A variable's name from TensorFlow's key for it.

    >>> _plain_name("variables/model.Sdense..kernel/.ATTRIBUTES/VARIABLE_VALUE")
    'model/dense.kernel'
    """
    name = name.removeprefix(_PREFIX).removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
    return re.sub(r"\.(S|\.)", lambda escape: "/" if escape[1] == "S" else ".", name)


def _resource(variable: Any) -> Any:
    """The TensorFlow variable behind a Keras one."""
    return getattr(variable, "_value", variable) if hasattr(variable, "path") else variable


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
