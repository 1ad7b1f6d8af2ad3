"""Saving and restoring the one atomic state: weights, optimizer, averages, component states and their offsets.

A save costs the learner one reference per variable: to its current value, a tensor that TensorFlow never changes
afterwards. Copying, writing and flushing to disk happen on a thread.
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

from learnd.checkpoint import files, reading, state_codec
from learnd.core import crash_points
from learnd.core.errors import ConfigError, FileLostError, Problem, SaveFailedError, StateDamagedError
from learnd.core.fsync import make_folder
from learnd.core.tensors import Tensor, TfVariable, Variable
from learnd.core.types import Offsets, State, TopicPartition

log = structlog.get_logger()

_KERAS_VALUE = "_value"
"""Attribute of a Keras variable with its TensorFlow variable; the public ``value`` may be a cast copy of it."""


@dataclass(frozen=True, slots=True)
class Saved:
    """The outcome of one save."""

    offsets: Offsets
    number: int
    duration_s: float
    size_bytes: int
    error: SaveFailedError | None = None


class _HostState(tf.train.experimental.PythonState):  # type: ignore[misc]
    """The part of the state that is not a variable."""

    def __init__(self) -> None:
        self.data = b""

    def serialize(self) -> bytes:
        return self.data

    def deserialize(self, string_value: bytes) -> None:
        self.data = string_value


class Checkpoints:
    """Checkpoints of *variables* together with a host state. The newest sound one is restored.

    Parameters
    ----------
    directory : created if it is missing
    keep : number of checkpoints to keep, at least 2
    variables : live TensorFlow or Keras variables, by a name that is the same in every process
    fingerprint : the part of the configuration that the arrays depend on; a checkpoint with another one is refused
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        variables: Mapping[str, TfVariable | Variable],
        fingerprint: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._keep = keep
        self._live = {name: _tf_variable(variable) for name, variable in variables.items()}
        self._fingerprint = dict(fingerprint)
        self._clock = clock
        # One thread for all saves: a new thread per save takes another malloc arena, and memory grows for hours.
        self._worker = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="learnd-checkpoint")
        self._future: futures.Future[None] | None = None
        self._outcomes: deque[Saved] = deque()
        self._number = 0
        self.damaged: tuple[int, ...] = ()
        """Numbers of the newer checkpoints that `restore` passed over because they are damaged."""
        self.restored: tuple[float, int] | None = None
        """Time (seconds since 1970) and size in bytes of the checkpoint that was restored; None if there was none."""

    def open(self) -> None:
        """Create the directory, and remove what a crash left incomplete in it."""
        make_folder(self._directory)
        files.sweep(self._directory)
        self._shadow: dict[str, TfVariable] = {
            name: tf.Variable(live, trainable=False) for name, live in self._live.items()
        }
        # One graph call instead of a hundred eager reads: a save stalls the learner for 1.1 ms instead of 2.9 ms.
        read = tf.function(lambda: {name: live.read_value() for name, live in self._live.items()}, autograph=False)
        self._read_all: Callable[[], dict[str, Tensor]] = read.get_concrete_function()
        self._host = _HostState()
        self._checkpoint = tf.train.Checkpoint(variables=self._shadow, host=self._host)
        # TensorFlow creates its save counter at the first save. Creating it now makes what is restored and what is
        # saved have the same structure.
        self._counter = self._checkpoint.save_counter
        self._number = max([self._number, *files.numbers(self._directory)])

    def restore(self) -> State | None:
        """Load the newest sound checkpoint into the live variables and return its host state.

        Return None if there is no checkpoint. Checksums are compared before TensorFlow reads a file. Damaged
        checkpoints are renamed, logged, and listed in `damaged`.

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
                log.error("checkpoint_damaged", path=str(path), error=plain_reason(error))
                damaged.append(number)
                continue
            self._require_same_fingerprint(host["fingerprint"])
            for name, live in self._live.items():
                live.assign(self._shadow[name])
            for damaged_number in damaged:
                files.set_aside(self._directory, damaged_number)
            self.damaged = tuple(damaged)
            self.restored = files.saved_at_s(self._directory, number), files.size_bytes(self._directory, number)
            state: State = host["state"]
            return state
        if damaged:
            names = ", ".join(f"ckpt-{number}" for number in damaged)
            raise StateDamagedError(
                f"{self._directory}: no checkpoint can be read ({names}). Restore one from a backup, or move the "
                "directory away to start from scratch; learnd never discards what it learned by itself"
            )
        return None

    def _read(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint into the shadow variables and return its host part; read no arrays of another model."""
        reader = reading.open_reader(path)
        host = reading.read_host(reader)
        if host["fingerprint"] == self._fingerprint:
            self._require_same_arrays(reader)
            self._checkpoint.read(str(path)).assert_consumed()
        return host

    def _require_same_arrays(self, reader: reading.CheckpointReader) -> None:
        """Raise ConfigError if names or shapes differ: options of an optimizer add and remove slots, without damage."""
        shapes = reader.get_variable_to_shape_map()
        saved = {
            reading.variable_name(key): list(shape) for key, shape in shapes.items() if key.startswith(reading.PREFIX)
        }
        expected = {name: list(variable.shape) for name, variable in self._shadow.items()}
        if names := sorted(saved.keys() ^ expected.keys()):
            raise self._other_options(names[0], f"{'lacks' if names[0] in expected else 'has'} {names[0]}")
        if names := sorted(name for name in saved if saved[name] != expected[name]):
            name = names[0]
            raise self._other_options(
                name, f"has {name} of shape {saved[name]}, where the model now has {expected[name]}"
            )

    def _other_options(self, name: str, difference: str) -> ConfigError:
        section = "learning.optimizer" if name.startswith("optimizer/") else "model"
        return ConfigError(
            f"{section}: the checkpoint under {self._directory} {difference}, so it was learned with other options or "
            "other code; change them back, or use another data_dir"
        )

    def _require_same_fingerprint(self, saved: Mapping[str, Any]) -> None:
        changed = [key for key in self._fingerprint if saved.get(key) != self._fingerprint[key]]
        if changed:
            key = changed[0]
            text = files.other_configuration(self._directory, key, saved.get(key), self._fingerprint[key])
            raise ConfigError(Problem(key, text))

    def begin(self, state: State, offsets: Offsets, flush: Callable[[], None]) -> None:
        """Start a save of everything as it is now. Return at once, or as soon as the previous save has ended.

        *state* is encoded later, so nothing in it may change after this call.
        *flush* runs first, on the saving thread: it delivers what the state assumes to be delivered.
        """
        self.wait()
        values = self._read_all()
        self._number += 1
        self._future = self._worker.submit(self._save, values, state, dict(offsets), self._number, flush)

    def wait(self) -> None:
        """Wait until no save is running."""
        if self._future is not None:
            futures.wait([self._future])

    def busy(self) -> bool:
        """Return whether a save is running."""
        return self._future is not None and not self._future.done()

    def outcome(self) -> Saved | None:
        """Return the outcome of the oldest save that was not returned yet, each once; None if there is none."""
        return self._outcomes.popleft() if self._outcomes else None

    def _save(
        self,
        values: Mapping[str, Tensor],
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
            self._host.data = state_codec.encode(
                {"form": reading.STATE_FORM, "fingerprint": self._fingerprint, "state": state}
            )
            summary = {**_summary(state, offsets), "fingerprint": self._fingerprint}
            size_bytes = files.write(self._directory, number, summary, self._write_arrays)
            crash_points.reached("checkpoint.after-save-before-commit")
            self._prune()
        except FileLostError as failure:
            error = failure
        except Exception as failure:
            error = SaveFailedError(f"{files.prefix(self._directory, number)}: {plain_reason(failure)}")
        self._outcomes.append(Saved(offsets, number, self._clock() - started_s, size_bytes, error))

    def _write_arrays(self, path: Path) -> None:
        self._checkpoint.write(str(path))

    def _prune(self) -> None:
        """Prune old checkpoints; only durable ones count towards `keep`. Failing to delete one does not fail a save."""
        try:
            numbers = files.numbers(self._directory)
            names = [f"ckpt-{number}" for number in numbers[-self._keep :]]
            # For users of `tf.train.latest_checkpoint`; learnd does not read that list.
            tf.compat.v1.train.update_checkpoint_state(str(self._directory), names[-1], names)
            for number in numbers[: -self._keep]:
                files.remove(self._directory, number)
        except (OSError, tf.errors.OpError) as error:
            log.warning("checkpoint_not_tidied", error=plain_reason(error))


def _summary(state: State, offsets: Offsets) -> dict[str, Any]:
    """Return the facts about a checkpoint that are readable without TensorFlow."""
    progress = state.get("progress", {})
    counts = {name: progress[name] for name in ("records", "samples", "updates") if name in progress}
    return {**counts, "offsets": offsets_to_state(offsets)}


def offsets_to_state(offsets: Offsets) -> list[list[Any]]:
    """Return offsets as plain lists.

    >>> offsets_from_state(offsets_to_state({TopicPartition("t", 0): 7}))
    {TopicPartition(topic='t', partition=0): 7}
    """
    return [[p.topic, p.partition, offset] for p, offset in sorted(offsets.items())]


def offsets_from_state(state: list[list[Any]]) -> dict[TopicPartition, int]:
    """Return offsets from plain lists: the inverse of `offsets_to_state`."""
    return {TopicPartition(topic, partition): offset for topic, partition, offset in state}


def _tf_variable(variable: TfVariable | Variable) -> TfVariable:
    """Return the TensorFlow variable behind a Keras variable, which alone has a path; return others as they are."""
    if not hasattr(variable, "path"):
        return variable
    tf_variable: TfVariable = getattr(variable, _KERAS_VALUE)
    return tf_variable


def plain_reason(error: BaseException) -> str:
    """Return the reason of a failure in one line, without the names of TensorFlow's operations and temporary files.

    >>> plain_reason(OSError(28, "No space left on device"))
    'No space left on device'
    >>> text = "{{function_node __wrapped__SaveV2 }} /d/part-0.tempstate15; No space left on device [Op:SaveV2]"
    >>> plain_reason(tf.errors.ResourceExhaustedError(None, None, text))
    'No space left on device'
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    line = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, tf.errors.OpError):
        line = re.sub(r"\s*\[Op:\w+\]|\{\{.*?\}\}\s*", "", line)
        line = re.sub(r"^\S+\.?(tempstate|partial)\S*; ", "", line)
    return line
