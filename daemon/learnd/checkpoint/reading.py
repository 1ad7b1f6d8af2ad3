"""Read access to checkpoints for tools, warm starts and tests; the daemon itself saves with `checkpointer`."""

import re
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf

from learnd.checkpoint import files, state_codec
from learnd.core.errors import ConfigError, StateDamagedError
from learnd.core.tensors import Array
from learnd.core.types import State

STATE_FORM = 4
"""The form of the state in a checkpoint. It changes whenever an older state would be misread.

2: positions in one value per partition, transforms by name, actions at a sample count.
"""
PREFIX = "variables/"
"""Start of the keys under which TensorFlow stores the variables."""


class CheckpointReader(Protocol):
    """TensorFlow's reader of one checkpoint."""

    def get_tensor(self, name: str, /) -> Any: ...

    def get_variable_to_shape_map(self) -> dict[str, list[int]]: ...


def newest_checkpoint(directory: Path) -> Path | None:
    """Return the prefix of the newest sound checkpoint in *directory*; None if there is no checkpoint.

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
    """Return the fingerprint of the configuration that the checkpoint at *prefix* was learned with."""
    fingerprint: dict[str, Any] = read_host(open_reader(prefix))["fingerprint"]
    return fingerprint


def read_arrays(directory: Path) -> tuple[dict[str, Array], State]:
    """Return the arrays by name, and the host state, of the newest checkpoint in *directory*.

    Raises
    ------
    StateDamagedError
        if *directory* holds no sound checkpoint.
    """
    path = newest_checkpoint(directory)
    if path is None:
        raise StateDamagedError(f"{directory} holds no checkpoint")
    return read_checkpoint(path)


def read_checkpoint(prefix: Path) -> tuple[dict[str, Array], State]:
    """Return the arrays by name, and the host state, of the checkpoint at *prefix*."""
    reader = open_reader(prefix)
    arrays: dict[str, Array] = {
        variable_name(key): reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if key.startswith(PREFIX)
    }
    state: State = read_host(reader)["state"]
    return arrays, state


def open_reader(prefix: Path) -> CheckpointReader:
    """Open the checkpoint at *prefix*."""
    reader: CheckpointReader = tf.train.load_checkpoint(str(prefix))
    return reader


def read_host(reader: CheckpointReader) -> dict[str, Any]:
    """Return the part of a checkpoint that is not a variable: its ``fingerprint`` and ``state``.

    Raises
    ------
    ConfigError
        if another version of learnd wrote it in another form.
    """
    host: dict[str, Any] = state_codec.decode(bytes(reader.get_tensor("host/.ATTRIBUTES/py_state")))
    form = host.get("form", 1)
    if form != STATE_FORM:
        raise ConfigError(
            f"data_dir: its checkpoints have form {form}, and this version of learnd reads form {STATE_FORM}. Run the "
            "version that wrote them; or set another data_dir, and model.load to the newest export in the old one"
        )
    return host


def variable_name(key: str) -> str:
    """Return a variable's name, given TensorFlow's key for it.

    >>> variable_name("variables/model.Sdense..kernel/.ATTRIBUTES/VARIABLE_VALUE")
    'model/dense.kernel'
    """
    name = key.removeprefix(PREFIX).removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
    return re.sub(r"\.(S|\.)", lambda escape: "/" if escape[1] == "S" else ".", name)
