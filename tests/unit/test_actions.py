"""Actions at a sample count: they fall on their sample, are in the checkpoint, and replay to the last bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.checkpoint import state_codec
from learnd.core.errors import ConfigError
from learnd.learners.actions import Actions
from learnd.runtime.loop import Pipeline
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, same_arrays, settings

ROWS, AT = 120, 50


class _Recorded:
    """An action that only remembers that it was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def apply(self) -> None:
        self.calls.append("apply")

    def reapply(self) -> None:
        self.calls.append("reapply")


class _ResetSlots:
    """Sets every slot of the optimizer to zero; all of it is in variables, so a restart repeats nothing."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def apply(self) -> None:
        for name, variable in self._pipeline.saving.checkpoints._live.items():
            if name.startswith("optimizer/") and not name.endswith("iteration"):
                variable.assign(np.zeros(variable.shape))

    def reapply(self) -> None:
        """Do nothing: the slots are restored."""


def test_actions_take_effect_once_and_in_order() -> None:
    """At equal counts in the order in which they were scheduled; a later one waits."""
    first, second, later = _Recorded(), _Recorded(), _Recorded()
    actions = Actions({"first": first, "second": second, "later": later})
    for name, at in (("later", 30), ("first", 20), ("second", 20)):
        actions.schedule(name, at)
    assert actions.samples_left(15) == 5
    assert not actions.take_effect(19)
    assert actions.take_effect(20)
    assert (first.calls, second.calls, later.calls) == (["apply"], ["apply"], [])
    assert actions.state() == {"pending": [[30, "later"]], "done": [[20, "first"], [20, "second"]]}
    assert not actions.take_effect(29)
    assert actions.samples_left(29) == 1


def test_a_restored_schedule_repeats_what_took_effect_and_keeps_what_is_pending() -> None:
    """Through the codec of the checkpoint; an action that took effect is not applied a second time."""
    one, other = _Recorded(), _Recorded()
    actions = Actions({"one": one, "other": other})
    assert not actions.restore(state_codec.decode(state_codec.encode({"pending": [[9, "other"]], "done": []})))
    assert actions.restore({"pending": [[9, "other"]], "done": [[4, "one"]]})
    assert (one.calls, other.calls) == (["reapply"], [])
    assert actions.take_effect(9)
    assert other.calls == ["apply"]


def test_an_unknown_action_is_refused_by_name() -> None:
    """With the names that exist."""
    with pytest.raises(KeyError, match="no action 'hold'; the known ones are: thaw"):
        Actions({"thaw": _Recorded()}).schedule("hold", 5)


def test_an_action_that_the_state_does_not_know_stays_scheduled() -> None:
    """The configuration may ask for one that the checkpoint was written without."""
    actions = Actions({"one": _Recorded(), "new": _Recorded()})
    actions.schedule("new", 30)
    actions.restore({"pending": [], "done": [[4, "one"]]})
    assert actions.samples_left(10) == 20


def test_a_state_with_an_action_that_is_gone_is_an_error_of_the_configuration() -> None:
    """Not a traceback in the middle of the stream."""
    with pytest.raises(ConfigError, match=r"the checkpoint has the action hold.*change it back"):
        Actions({"thaw": _Recorded()}).restore({"pending": [[9, "hold"]], "done": []})


def test_an_action_in_the_past_is_refused(tmp_path: Path) -> None:
    """It would take effect where a batch happens to end."""
    pipeline = _pipeline(tmp_path, "per_sample")
    pipeline.model.learner.learn(_samples())
    with pytest.raises(ValueError, match=f"reset_slots at 7 samples, but {ROWS} are learned already"):
        pipeline.model.learner.schedule("reset_slots", 7)


def _pipeline(folder: Path, mode: str) -> Pipeline:
    learning: dict[str, Any] = {"mode": mode, "compile": False, "optimizer": {"kind": "adam", "learning_rate": 0.01}}
    if mode == "micro_batch":
        learning["batch_size"] = 8
    pipeline = make_pipeline(settings(folder, learning=learning))
    actions = pipeline.model.learner._chunk.actions  # type: ignore[attr-defined]
    actions._known["reset_slots"] = _ResetSlots(pipeline)
    return pipeline


def _arrays(pipeline: Pipeline) -> dict[str, Any]:
    return {name: variable.numpy() for name, variable in pipeline.saving.checkpoints._live.items()}


def _samples() -> Any:
    random = np.random.default_rng(4)
    x = random.normal(size=(ROWS, 3)).astype(np.float32)
    return make_samples(x, x[:, :1] * 2.0)


@pytest.mark.parametrize(("mode", "cuts"), [("per_sample", (20, 50, 80)), ("micro_batch", (50, 53))])
def test_an_action_replays_to_the_last_bit(tmp_path: Path, mode: str, cuts: tuple[int, ...]) -> None:
    """Wherever a restart falls: before the action, at it, or after it."""
    samples = _samples()
    whole = _pipeline(tmp_path, mode)
    start = _arrays(whole)
    whole.model.learner.learn(samples)
    plain = _arrays(whole)
    for cut in (None, *cuts):
        _put(whole, start, {"actions": {"pending": [[AT, "reset_slots"]], "done": []}})
        if cut is None:
            whole.model.learner.learn(samples)
            expected = _arrays(whole)
            assert same_arrays(expected, plain) != [], "the action does something"
            continue
        whole.model.learner.learn(samples.take(slice(0, cut)))
        saved = state_codec.decode(state_codec.encode(whole.model.learner.state()))
        arrays = _arrays(whole)
        _put(whole, start, {"actions": {"pending": [], "done": []}})
        _put(whole, arrays, saved)
        whole.model.learner.learn(samples.take(slice(cut, None)))
        assert same_arrays(expected, _arrays(whole)) == [], cut


def _put(pipeline: Pipeline, arrays: dict[str, Any], state: dict[str, Any]) -> None:
    """Restore what a checkpoint would hold."""
    for name, variable in pipeline.saving.checkpoints._live.items():
        variable.assign(arrays[name])
    pipeline.model.learner.restore(state)
