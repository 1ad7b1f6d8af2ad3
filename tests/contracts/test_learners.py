"""What every learner owes: everything it is given is learned once, in order, and its state restores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.checkpoint import state_codec
from learnd.config.settings import Settings
from learnd.core.types import Samples
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, settings

pytestmark = pytest.mark.usefixtures("shared_traces")

CASES: dict[str, dict[str, Any]] = {"auto": {}, "per_sample": {}, "micro_batch": {"batch_size": 4}}


def _options(data_dir: Path, mode: str) -> Settings:
    averaging = {"averaging": None} if mode == "auto" else {}  # it averages by itself
    return settings(data_dir, learning={"mode": mode, **CASES[mode]}, **averaging)


def _samples(first: int, last: int) -> Samples:
    x = np.random.default_rng(3).normal(size=(1000, 3)).astype(np.float32)[first:last]
    return make_samples(x, x[:, :1] * 2, first=first, keys=[f"k{i}" for i in range(first, last)])


@pytest.mark.parametrize("mode", CASES)
def test_samples_are_learned_once_and_in_order(mode: str, tmp_path: Path) -> None:
    """Results speak of the samples in the order of arrival; empty input is fine; updates are counted."""
    pipeline = make_pipeline(_options(tmp_path, mode))
    results = [pipeline.model.learner.learn(_samples(a, b)) for a, b in ((0, 0), (0, 1), (1, 7), (7, 7), (7, 40))]
    offsets = [int(offset) for result in results for offset in result.samples.offsets]
    assert offsets == list(range(40))
    assert sum(result.updates for result in results) == 40 // CASES[mode].get("batch_size", 1)
    for result in results:
        assert len(result.predictions) == len(result.losses) == len(result.averaged_losses) == len(result.samples)
        assert np.isfinite(result.predictions).all()


@pytest.mark.parametrize("mode", CASES)
def test_a_restored_learner_goes_on_the_same(mode: str, tmp_path: Path) -> None:
    """Variables and host state together are all there is; the state passes the codec."""
    options = _options(tmp_path, mode)
    one, other = make_pipeline(options), make_pipeline(options)
    one.model.learner.learn(_samples(0, 21))
    for name, variable in other.saving.checkpoints._live.items():
        variable.assign(one.saving.checkpoints._live[name])
    other.model.learner.restore(state_codec.decode(state_codec.encode(one.model.learner.state())))
    result, again = one.model.learner.learn(_samples(21, 40)), other.model.learner.learn(_samples(21, 40))
    np.testing.assert_array_equal(result.predictions, again.predictions)
    np.testing.assert_array_equal(result.averaged_losses, again.averaged_losses)
    assert result.samples.keys.tolist() == again.samples.keys.tolist()
