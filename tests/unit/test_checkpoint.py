"""Checkpoints: sound ones restore to the last bit, damaged ones are passed over, foreign ones refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from learnd.checkpoint import Checkpoints
from learnd.errors import ConfigError, SaveFailedError, StateDamagedError
from learnd.types import TopicPartition

PARTITION = TopicPartition("t", 0)


def _checkpoints(folder: Path, variables: dict[str, Any], **options: Any) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=3, variables=variables, fingerprint=options or {"model": "mlp"})
    checkpoints.open()
    return checkpoints


def _variables() -> dict[str, Any]:
    return {"model/a": tf.Variable([0.0, 0.0]), "count": tf.Variable(0, dtype=tf.int64)}


def _save(checkpoints: Checkpoints, variables: dict[str, Any], value: int) -> None:
    variables["model/a"].assign([value, value + 0.5])
    variables["count"].assign(value)
    checkpoints.begin({"value": value}, {PARTITION: value}, lambda: None)
    checkpoints.wait()
    outcome = checkpoints.outcome()
    assert outcome is not None
    assert outcome.error is None
    assert outcome.offsets == {PARTITION: value}
    assert outcome.size_bytes > 0


@pytest.fixture
def five_saves(tmp_path: Path) -> Path:
    variables = _variables()
    checkpoints = _checkpoints(tmp_path, variables)
    assert checkpoints.restore() is None
    for value in range(1, 6):
        _save(checkpoints, variables, value)
    return tmp_path


def test_the_newest_is_restored_and_old_ones_are_pruned(five_saves: Path) -> None:
    """Variables and host state come back; ``keep`` checkpoints stay."""
    variables = _variables()
    assert _checkpoints(five_saves, variables).restore() == {"value": 5}
    np.testing.assert_array_equal(variables["model/a"], [5.0, 5.5])
    assert int(variables["count"]) == 5
    assert len(list(five_saves.glob("ckpt-*.index"))) == 3


def _truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


DAMAGES = {
    "data truncated": ("data-00000-of-00001", _truncate),
    "data flipped": ("data-00000-of-00001", _flip),
    "data gone": ("data-00000-of-00001", Path.unlink),
    "index truncated": ("index", _truncate),
    "index flipped": ("index", _flip),
    "index empty": ("index", lambda path: path.write_bytes(b"")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_to_the_one_before(five_saves: Path, damage: str) -> None:
    """With its own state; the damaged one is set aside, and its number is not used again."""
    suffix, spoil = DAMAGES[damage]
    spoil(five_saves / f"ckpt-5.{suffix}")
    variables = _variables()
    checkpoints = _checkpoints(five_saves, variables)
    assert checkpoints.restore() == {"value": 4}
    np.testing.assert_array_equal(variables["model/a"], [4.0, 4.5])
    _save(checkpoints, variables, 7)
    again = _variables()
    assert _checkpoints(five_saves, again).restore() == {"value": 7}


def test_tensorflows_own_list_may_be_lost(five_saves: Path) -> None:
    """The files count, so the newest is found all the same."""
    (five_saves / "checkpoint").unlink()
    assert _checkpoints(five_saves, _variables()).restore() == {"value": 5}
    (five_saves / "checkpoint").write_bytes(b"")
    assert _checkpoints(five_saves, _variables()).restore() == {"value": 5}


def test_if_all_are_damaged_nothing_starts_afresh(five_saves: Path) -> None:
    """The error names them."""
    for path in five_saves.glob("ckpt-*.index"):
        _truncate(path)
    with pytest.raises(StateDamagedError, match="ckpt-5, ckpt-4, ckpt-3"):
        _checkpoints(five_saves, _variables()).restore()


def test_a_checkpoint_of_another_configuration_is_refused(five_saves: Path) -> None:
    """The error names the key and both values."""
    with pytest.raises(ConfigError, match=r"model: .* learned with mlp, the configuration now says lstm"):
        _checkpoints(five_saves, _variables(), model="lstm").restore()


def test_a_failed_flush_saves_nothing(tmp_path: Path) -> None:
    """What the state takes for delivered must be; the failure is an outcome, not a crash."""
    variables = _variables()
    checkpoints = _checkpoints(tmp_path, variables)

    def fail() -> None:
        raise OSError("no space")

    checkpoints.begin({}, {}, fail)
    checkpoints.wait()
    outcome = checkpoints.outcome()
    assert outcome is not None
    assert isinstance(outcome.error, SaveFailedError)
    assert not list(tmp_path.glob("ckpt-*"))
    _save(checkpoints, variables, 3)
