"""Checkpoints: sound ones restore to the last bit, damaged ones are passed over, foreign ones refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import tensorflow as tf

from learnd.checkpoint import files as checkpoint_files
from learnd.checkpoint import reading, state_codec
from learnd.checkpoint.checkpointer import Checkpoints, _HostState
from learnd.checkpoint.reading import STATE_FORM
from learnd.core.errors import ConfigError, SaveFailedError, StateDamagedError
from learnd.core.types import TopicPartition

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
    "index gone": ("index", Path.unlink),
    "data empty": ("data-00000-of-00001", lambda path: path.write_bytes(b"")),
    "summary truncated": ("json", _truncate),
    "summary flipped": ("json", _flip),
    "summary empty": ("json", lambda path: path.write_bytes(b"")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_to_the_one_before(five_saves: Path, damage: str) -> None:
    """With its own state; the damaged one is set aside, and its number is not used again."""
    suffix, spoil = DAMAGES[damage]
    spoil(five_saves / f"ckpt-5.{suffix}")
    variables = _variables()
    checkpoints = _checkpoints(five_saves, variables)
    with structlog.testing.capture_logs() as logs:
        assert checkpoints.restore() == {"value": 4}
    assert checkpoints.damaged == (5,)
    assert [(event["event"], Path(event["path"]).name) for event in logs] == [("checkpoint_damaged", "ckpt-5")]
    assert list(five_saves.glob("damaged-ckpt-5.*"))
    np.testing.assert_array_equal(variables["model/a"], [4.0, 4.5])
    _save(checkpoints, variables, 7)
    again = _variables()
    assert _checkpoints(five_saves, again).restore() == {"value": 7}


def test_every_flipped_bit_is_found(five_saves: Path) -> None:
    """In any file, at any place; reading every array and the host state with TensorFlow alone misses most of them."""
    for path in sorted(five_saves.glob("ckpt-5.*")):
        whole = path.read_bytes()
        for position in range(len(whole)):
            spoilt = bytearray(whole)
            spoilt[position] ^= 1 << position % 8
            path.write_bytes(spoilt)
            assert checkpoint_files.damage(five_saves, 5), f"{path.name}, byte {position}"
        path.write_bytes(whole)
    assert checkpoint_files.damage(five_saves, 5) == ""


def test_a_checkpoint_without_a_summary_is_restored(tmp_path: Path) -> None:
    """As TensorFlow's manager wrote it; found unsound by TensorFlow alone, it is passed over."""
    variables = _variables()
    variables["count"].assign(7)
    host = _HostState()
    old = tf.train.Checkpoint(variables={name: tf.Variable(v) for name, v in variables.items()}, host=host)
    manager = tf.train.CheckpointManager(old, str(tmp_path), max_to_keep=3, checkpoint_name="ckpt")
    for value in (1, 2):
        host.data = state_codec.encode({"form": STATE_FORM, "fingerprint": {"model": "mlp"}, "state": {"value": value}})
        manager.save()
    again = _variables()
    assert _checkpoints(tmp_path, again).restore() == {"value": 2}
    assert int(again["count"]) == 7
    _truncate(tmp_path / "ckpt-2.data-00000-of-00001")
    checkpoints = _checkpoints(tmp_path, again)
    assert checkpoints.restore() == {"value": 1}
    _save(checkpoints, again, 3)
    assert _checkpoints(tmp_path, again).restore() == {"value": 3}


def test_a_checkpoint_of_another_form_is_refused_and_stays(five_saves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state would be misread. The error names both forms and the ways out; nothing is set aside."""
    monkeypatch.setattr(reading, "STATE_FORM", STATE_FORM + 1)
    with pytest.raises(
        ConfigError, match=rf"data_dir: .* form {STATE_FORM}, .* reads form {STATE_FORM + 1}.*model\.load"
    ):
        _checkpoints(five_saves, _variables()).restore()
    monkeypatch.undo()
    assert _checkpoints(five_saves, _variables()).restore() == {"value": 5}


def test_a_checkpoint_from_before_there_were_forms_is_refused(tmp_path: Path) -> None:
    """It had its positions in three places."""
    host = _HostState()
    old = tf.train.Checkpoint(variables={name: tf.Variable(v) for name, v in _variables().items()}, host=host)
    host.data = state_codec.encode({"fingerprint": {"model": "mlp"}, "state": {"value": 1}})
    tf.train.CheckpointManager(old, str(tmp_path), max_to_keep=3, checkpoint_name="ckpt").save()
    with pytest.raises(ConfigError, match="checkpoints have form 1"):
        _checkpoints(tmp_path, _variables()).restore()


def test_a_crash_within_the_first_save_is_no_damage(tmp_path: Path) -> None:
    """What it left, ours or of an older learnd, is swept: there never was a checkpoint."""
    (tmp_path / ".partial-1").mkdir()
    for name in ("ckpt-1.data-00000-of-00001", "ckpt-1.json", ".partial-1/ckpt-1.index"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "ckpt-1_temp").mkdir()
    checkpoints = _checkpoints(tmp_path, _variables())
    assert checkpoints.restore() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt-1_temp"]


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
    with pytest.raises(ConfigError, match=r"model: .* learned with mlp, but the configuration now says lstm"):
        _checkpoints(five_saves, _variables(), model="lstm").restore()


def test_arrays_of_another_shape_are_a_change_not_damage(five_saves: Path) -> None:
    """Say of a factory whose code was edited: the files are whole, and nothing is set aside."""
    variables = {**_variables(), "model/a": tf.Variable([0.0, 0.0, 0.0])}
    with pytest.raises(ConfigError, match=r"model: .*has model/a of shape \[2\], where the model now has \[3\]"):
        _checkpoints(five_saves, variables).restore()
    assert _checkpoints(five_saves, _variables()).restore() == {"value": 5}


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
