"""What a configuration and a model file can do, as `daemon/docs/security.md` says."""

from pathlib import Path

import pytest
import tensorflow as tf

from tests.support.helpers import ROOT, config_text, run_cli


class _WritesWhenLoaded(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]
    """A resource like a lookup table, whose initializer TensorFlow runs while it loads the model."""

    def __init__(self, path: Path) -> None:
        super().__init__(device="CPU")
        self._path = str(path)

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[])

    @tf.function(input_signature=[], autograph=False)  # type: ignore[untyped-decorator]
    def _initialize(self) -> int:
        tf.io.write_file(self._path, "by a model file")
        return 1

    @tf.function(input_signature=[], autograph=False)  # type: ignore[untyped-decorator]
    def _destroy_resource(self) -> int:
        return 1


class _Model(tf.Module):  # type: ignore[misc]
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.weights = tf.Variable(tf.ones([3, 1]))
        self.resource = _WritesWhenLoaded(path)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)], autograph=False)  # type: ignore[untyped-decorator]
    def serve(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": inputs @ self.weights}


def _config(folder: Path, **sections: object) -> Path:
    config = folder / "config.yaml"
    config.write_text(config_text(folder / "data", **sections))
    return config


def test_a_saved_model_is_a_program(tmp_path: Path) -> None:
    """It writes a file where it likes, already when it is loaded; `validate` without ``--load`` does not touch it."""
    mark = tmp_path / "mark"
    model = _Model(mark)
    tf.saved_model.save(model, str(tmp_path / "model"), signatures={"serving_default": model.serve})
    assert not mark.exists()
    config = _config(tmp_path, model={"load": str(tmp_path / "model")})
    assert run_cli("validate", str(config)).returncode == 0
    assert not mark.exists()
    loaded = run_cli("validate", "--load", str(config))
    assert loaded.returncode == 0, loaded.stderr
    assert mark.read_text() == "by a model file"
    assert "A SavedModel is a program" in (ROOT / "daemon" / "docs" / "security.md").read_text()


CODE = """\
from pathlib import Path
Path({mark!r}).write_text("by a module")
"""


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"factory": "noisy:make"}},
        {"model": {"load": "model.keras", "code": ["noisy"]}},
        {"learning": {"update": "noisy:update"}},
        {"learning": {"loss": "noisy:loss"}},
        {"learning": {"optimizer": {"kind": "noisy:Optimizer"}}},
        {
            "source": {
                "kind": "kafka",
                "bootstrap_servers": ["127.0.0.1:1"],
                "topics": ["t"],
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_provider": "noisy:token",
            }
        },
    ],
)
def test_validating_a_configuration_runs_no_code_that_it_names(
    sections: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's file can be looked at; only ``--load`` and `run` import what stands in it."""
    mark = tmp_path / "mark"
    (tmp_path / "noisy.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    (tmp_path / "model.keras").touch()  # that a named file is there is looked up
    done = run_cli("validate", str(_config(tmp_path, **sections)), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()
