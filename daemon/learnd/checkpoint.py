"""The one atomic state: weights, optimizer, averages, every component's state, and the offsets they belong to.

A save costs the learner only a reference to each variable's present value, which TensorFlow never changes
afterwards; the copying, writing and flushing to disk happen on a thread.
"""

import re
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import tensorflow as tf

from learnd import statecodec
from learnd.durable import fsync
from learnd.errors import ConfigError, SaveFailedError, StateDamagedError
from learnd.types import Offsets, State, TopicPartition

log = structlog.get_logger()

_PREFIX = "variables/"
_NAME = re.compile(r"ckpt-(\d+)\.index$")


@dataclass(frozen=True, slots=True)
class Saved:
    """The outcome of one save."""

    offsets: Offsets
    number: int
    duration_s: float
    size_bytes: int
    error: BaseException | None = None


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
        self._outcome: Saved | None = None
        self._manager: Any = None
        self._number = 0

    def open(self) -> None:
        """Make the directory and find what is there, with or without TensorFlow's own list of it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._shadow = {name: tf.Variable(live, trainable=False) for name, live in self._live.items()}
        # One graph call in place of a hundred eager reads: it took the stall of a save from 2.9 ms to 1.1.
        read = tf.function(lambda: {name: live.read_value() for name, live in self._live.items()}, autograph=False)
        self._read_all = read.get_concrete_function()
        self._host = _HostState()
        self._checkpoint = tf.train.Checkpoint(variables=self._shadow, host=self._host)
        numbers = self._numbers()
        if not numbers:
            # An empty or foreign list would keep the manager from being made.
            (self._directory / "checkpoint").unlink(missing_ok=True)
        if numbers and self._listed() != numbers:
            # TensorFlow's list is missing or stale (a crash, a copy by hand); the files are what counts.
            tf.compat.v1.train.update_checkpoint_state(
                str(self._directory), f"ckpt-{numbers[-1]}", [f"ckpt-{n}" for n in numbers]
            )
        self._number = max([self._number, *numbers])
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(self._directory), max_to_keep=self._keep, checkpoint_name="ckpt"
        )

    def _listed(self) -> list[int]:
        try:
            listed = tf.train.get_checkpoint_state(str(self._directory))
        except Exception:  # whatever a torn file makes TensorFlow's parser say
            return []
        names = listed.all_model_checkpoint_paths if listed is not None else []
        return [int(name.rpartition("-")[2]) for name in names]

    def _numbers(self) -> list[int]:
        return _numbers_in(self._directory)

    def restore(self) -> State | None:
        """Put the newest sound checkpoint into the live variables; returns its host state.

        None if there has never been one. Unsound ones are set aside under another name, and logged.

        Raises
        ------
        StateDamagedError
            if there are checkpoints and none is sound.
        ConfigError
            if the checkpoint belongs to another configuration.
        """
        damaged: list[str] = []
        for number in reversed(self._numbers()):
            path = self._directory / f"ckpt-{number}"
            try:
                host = self._read(path)
            except ConfigError:
                raise
            except Exception as error:
                log.error("checkpoint_damaged", path=str(path), error=_first_line(error))
                damaged.append(path.name)
                continue
            self._require_same(host["fingerprint"])
            for name, live in self._live.items():
                live.assign(self._shadow[name])
            for name in damaged:
                _set_aside(self._directory, name)
            if damaged:
                self.open()
            state: State = host["state"]
            return state
        if damaged or any(self._directory.glob("ckpt-*")):
            names = ", ".join(damaged) or "files without an index"
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
            self._checkpoint.restore(str(path)).assert_consumed()
        return host

    def _require_same_arrays(self, reader: Any) -> None:
        """Options of an optimizer can add and take away slots; that is a change, not damage."""
        saved = {_plain_name(name) for name in reader.get_variable_to_shape_map() if name.startswith(_PREFIX)}
        if changed := sorted(saved ^ set(self._shadow)):
            verb = "lacks" if changed[0] in self._shadow else "has"
            section = "learning.optimizer" if changed[0].startswith("optimizer/") else "model"
            raise ConfigError(
                f"{section}: the checkpoint under {self._directory} {verb} {changed[0]}, so it was learned with other "
                "options; change them back, or use another data_dir"
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
        """The outcome of the last save, once."""
        if self.busy():
            return None
        outcome, self._outcome = self._outcome, None
        return outcome

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
        error: BaseException | None = None
        try:
            flush()
            for name, value in values.items():
                self._shadow[name].assign(value)
            self._host.data = statecodec.encode({"fingerprint": self._fingerprint, "state": state})
            self._manager.save(checkpoint_number=number)
            size_bytes = self._make_durable(number)
        except Exception as failure:
            error = SaveFailedError(f"{self._directory}/ckpt-{number}: {_first_line(failure)}")
        self._outcome = Saved(offsets, number, self._clock() - started_s, size_bytes, error)

    def _make_durable(self, number: int) -> int:
        """fsync the checkpoint's files, then the folder; returns their size."""
        size_bytes = 0
        for path in [*self._directory.glob(f"ckpt-{number}.*"), self._directory / "checkpoint"]:
            fsync(path)
            size_bytes += path.stat().st_size
        fsync(self._directory)
        return size_bytes


def newest_checkpoint(directory: Path) -> Path | None:
    """The prefix of the newest checkpoint in *directory*; None if there is none."""
    numbers = _numbers_in(directory)
    return directory / f"ckpt-{numbers[-1]}" if numbers else None


def _numbers_in(directory: Path) -> list[int]:
    return sorted(int(match.group(1)) for path in directory.iterdir() if (match := _NAME.match(path.name)))


def read_fingerprint(prefix: Path) -> dict[str, Any]:
    """What the checkpoint *prefix* says of the configuration that it was learned with."""
    fingerprint: dict[str, Any] = _read_host(tf.train.load_checkpoint(str(prefix)))["fingerprint"]
    return fingerprint


def read_arrays(directory: Path) -> tuple[dict[str, Any], State]:
    """The arrays by name, and the host state, of the newest checkpoint in *directory*; for tools and tests."""
    path = newest_checkpoint(directory)
    if path is None:
        raise StateDamagedError(f"{directory} holds no checkpoint")
    reader = tf.train.load_checkpoint(str(path))
    arrays = {
        _plain_name(name): reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(_PREFIX)
    }
    state: State = _read_host(reader)["state"]
    return arrays, state


def _read_host(reader: Any) -> dict[str, Any]:
    host: dict[str, Any] = statecodec.decode(bytes(reader.get_tensor("host/.ATTRIBUTES/py_state")))
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


def _set_aside(directory: Path, name: str) -> None:
    for path in directory.glob(f"{name}.*"):
        path.rename(path.with_name(f"damaged-{path.name}"))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
