"""What every reaction to drift owes: it does something, and a learner that is restored in between ends the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.checkpoint import state_codec
from learnd.config.settings import Settings
from learnd.core.types import Samples
from learnd.drift.reactions import REACTIONS
from learnd.runtime.loop import Pipeline
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, same_arrays, settings

pytestmark = pytest.mark.usefixtures("shared_traces")

CASES: dict[str, dict[str, Any]] = {
    "log": {},
    "raise_rate": {"samples": 200},
    "reset_slots": {},
    "weigh_replay": {"weight": 0.0},
    "restart_averages": {},
    "hasten_scales": {},
    "go_back": {"copy_every_samples": 500, "samples": 16, "better_by": 0.0},
    "challenger": {"samples": 100, "last_samples": 400, "better_by": 0.0},
    "export_now": {},
    "webhook": {"url": "http://127.0.0.1:9/never", "attempts": 1, "timeout_s": 0.1},
}
OPTIMIZER = {"kind": "adam", "learning_rate": 0.01}
MODES: dict[str, dict[str, Any]] = {
    "auto": {"averaging": None, "learning": {"mode": "auto"}},
    "per_sample": {
        "learning": {"mode": "per_sample", "optimizer": OPTIMIZER, "replay": {"kind": "recency", "size": 50}},
        "averaging": {"kind": "ema", "every_samples": 10},
    },
    "micro_batch": {
        "learning": {"mode": "micro_batch", "batch_size": 4, "optimizer": OPTIMIZER, "replay": {"size": 50}},
        "averaging": {"kind": "window", "size": 4, "every_samples": 10},
    },
}
SLOW = {"learning": {"mode": "per_sample", "optimizer": {"kind": "sgd", "learning_rate": 0.002}}}
"""A learner that takes so long to follow that one which begins again is better."""
CHANGE, COUNT = 1500, 2500


def _samples() -> Samples:
    """A target that depends on the inputs in another way from `CHANGE` on, and as before from 2100 on."""
    random = np.random.default_rng(3)
    x = random.normal(size=(COUNT, 3))
    y = x @ [2.0, -1.0, 0.5]
    y[CHANGE:2100] = x[CHANGE:2100] @ [-2.0, 1.0, 3.0]
    return make_samples(x, y[:, None] + 0.1 * random.normal(size=(COUNT, 1)))


def _options(folder: Path, mode: str, *kinds: str) -> Settings:
    drift = {
        "detectors": [{"kind": "page_hinkley", "block": 8}],
        "reactions": [{"kind": kind, **CASES[kind], "at_most": 1} for kind in kinds],
        "review_every_samples": 60,
    }
    return settings(folder, drift=drift, **(SLOW if mode == "slow" else MODES[mode]))


def _arrays(pipeline: Pipeline) -> dict[str, Any]:
    return {name: np.array(variable.numpy()) for name, variable in pipeline.saving.checkpoints._live.items()}


class _Stream:
    """A pipeline that learns parts of the samples, and notes the reactions that were made."""

    def __init__(self, options: Settings) -> None:
        self.pipeline = make_pipeline(options)
        self.made: list[tuple[int, tuple[str, ...]]] = []
        self._samples = _samples()

    def learn(self, first: int, last: int) -> None:
        result = self.pipeline.model.learner.learn(self._samples.take(slice(first, last)))
        drifts = [line for _, line in self.pipeline.drifting.observe(result)]
        self.made += [(line["at_samples"], tuple(line["reactions"])) for line in drifts]

    def saved(self) -> tuple[dict[str, Any], bytes]:
        parts = {"learner": self.pipeline.model.learner.state(), "drift": self.pipeline.drifting.state()}
        return _arrays(self.pipeline), state_codec.encode(parts)

    def restore(self, arrays: dict[str, Any], state: bytes) -> None:
        for name, variable in self.pipeline.saving.checkpoints._live.items():
            variable.assign(arrays[name])
        parts = state_codec.decode(state)
        self.pipeline.model.learner.restore(parts["learner"])
        self.pipeline.drifting.restore(parts["drift"])


def _with_restarts(options: Settings, cuts: list[int]) -> _Stream:
    """A stream that is restored into a new pipeline at each of the *cuts*."""
    stream = _Stream(options)
    for start, stop in zip([0, *cuts], [*cuts, COUNT], strict=True):
        stream.learn(start, stop)
        saved, made = stream.saved(), stream.made
        stream = _Stream(options)
        stream.restore(*saved)
        stream.made = made
    return stream


@pytest.mark.parametrize("kind", CASES)
def test_a_reaction_is_made_and_survives_a_restart_anywhere(kind: str, tmp_path: Path) -> None:
    """The learner ends with the same bits, whether it was restored before the reaction, while it lasts, or after it.

    It differs from one without the reaction if, and only if, the settings say that the reaction changes the model.
    """
    mode = "slow" if kind == "challenger" else "per_sample"
    options = _options(tmp_path, mode, kind)
    whole = _Stream(options)
    whole.learn(0, COUNT)
    [at] = [at for at, made in whole.made if made == (kind,)]
    assert at % 60 == 0
    other = _with_restarts(options, [CHANGE + 20, at, at + 90, at + 270])
    assert other.made == whole.made
    assert same_arrays(other.saved()[0], whole.saved()[0]) == []
    if kind != "webhook":  # what is delivered meanwhile is gone from the state
        assert other.saved()[1] == whole.saved()[1]
    plain = _Stream(_options(tmp_path, mode))
    plain.learn(0, COUNT)
    changed = same_arrays(whole.saved()[0], plain.saved()[0]) != []
    assert changed == REACTIONS[kind].settings.changes_model


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=() if mode == "auto" else pytest.mark.slow) for mode in MODES]
)
def test_a_chain_of_all_reactions_survives_restarts_in_every_mode(mode: str, tmp_path: Path) -> None:
    """With the same bits, and the same reactions at the same samples."""
    options = _options(tmp_path, mode, *CASES)
    whole = _Stream(options)
    whole.learn(0, COUNT)
    made = {kind for _, kinds in whole.made for kind in kinds}
    assert made >= set(CASES) - {"go_back"}  # in the mode auto, the old weights are no better
    at = whole.made[0][0]
    other = _with_restarts(options, [CHANGE + 20, CHANGE + 23, at + 1, at + 95])
    assert other.made == whole.made
    assert same_arrays(other.saved()[0], whole.saved()[0]) == []
