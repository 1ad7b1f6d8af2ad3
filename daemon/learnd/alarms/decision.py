"""The decision of the onset head: the evidence of the readings and of the model's loss, and one alarm per episode."""

from typing import NamedTuple

import numpy as np

from learnd.alarms.compiled import compiled
from learnd.alarms.ranges import Ranges, make_ranges, observe
from learnd.alarms.threshold import Threshold, make_threshold, observe_score
from learnd.core.types import BoolArray, Float64Array, Int64Array

LOSSES = 8
"""Losses whose mean logarithm is a signal."""
LOSS_WARM_UP = 31
"""Losses before that signal is observed: the first ones of a new model mean nothing."""
SMALLEST_LOSS, LARGEST_LOSS = 1e-4, 1e12
"""Losses are raised by the first, so that a perfect prediction has a logarithm, and limited to the second."""
THRESHOLD = 2.0
"""Evidence at which an alarm is raised unless a rate of false alarms is chosen: a probability of 0.865."""
LEAST_THRESHOLD = 0.5
"""The smallest threshold that is estimated."""
REFRACTORY = 100
"""Readings after an alarm in which only much stronger evidence raises another one."""
STRONGER = 4.0
"""That much stronger."""


class Decision(NamedTuple):
    """The state of the decision. The leading axis of each array is the key.

    Attributes
    ----------
    rows : (keys,), rows so far
    losses : (keys,), losses so far
    recent : (keys, LOSSES), the logarithms of the last ones, a ring
    ranges : of their mean
    raised_at : (keys,), the row of the last alarm
    level : (keys,), its evidence
    threshold : the evidence at which an alarm is raised
    """

    rows: Int64Array
    losses: Int64Array
    recent: Float64Array
    ranges: Ranges
    raised_at: Int64Array
    level: Float64Array
    threshold: Threshold


def make_decision(*, estimated: bool) -> Decision:
    """Return the decision of one key; its threshold is *estimated* or fixed."""
    return Decision(
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
        np.zeros((1, LOSSES)),
        make_ranges(1),
        np.full(1, -(10**9), np.int64),
        np.zeros(1),
        make_threshold(THRESHOLD, floor=LEAST_THRESHOLD, estimated=estimated),
    )


def _against_losses(decision: Decision, slot: int, loss: float, warm_up: int) -> float:
    """Return the evidence of the mean logarithm of the last losses, with *loss* as the newest."""
    count = decision.losses[slot]
    decision.recent[slot, count % LOSSES] = np.log(min(loss, LARGEST_LOSS) + SMALLEST_LOSS)
    decision.losses[slot] = count + 1
    if decision.rows[slot] < warm_up or count + 1 < LOSS_WARM_UP:
        return 0.0
    total = 0.0
    for i in range(LOSSES):
        total += decision.recent[slot, i]
    return observe(decision.ranges, slot, total / LOSSES, False)


_losses = compiled(_against_losses)


class DecisionOptions(NamedTuple):
    """Options of the decision.

    Attributes
    ----------
    warm_up : rows before the first alarm
    per_readings, per_seconds : as in `learnd.alarms.level.LevelOptions`
    """

    warm_up: int
    per_readings: float
    per_seconds: float


def _decide(
    decision: Decision,
    evidence: Float64Array,
    losses: Float64Array,
    times_s: Float64Array,
    slots: Int64Array,
    options: DecisionOptions,
    probabilities: Float64Array,
    raised: BoolArray,
    from_loss: Float64Array,
    strengths: Float64Array,
) -> None:
    """Write the probability that something begins at each row, and whether an alarm is raised there.

    Within an episode, after its alarm, the probability is 0. Rows of a negative slot are passed over.

    Parameters
    ----------
    evidence : (n,), of the readings
    losses : (n,), of the model; nan: unknown
    from_loss, strengths : (n,), receive the evidence of the losses, and all evidence in units of the threshold
    """
    for row in range(len(evidence)):
        slot = slots[row]
        if slot < 0:
            continue
        if not np.isnan(losses[row]):
            from_loss[row] = _losses(decision, slot, losses[row], options.warm_up)
        total = evidence[row] + from_loss[row]
        strengths[row] = total / (decision.threshold.value[slot] * decision.threshold.factor[slot])
        decision.rows[slot] += 1
        in_episode = False
        if strengths[row] >= 1.0:
            since = decision.rows[slot] - decision.raised_at[slot]
            in_episode = since <= REFRACTORY and total < STRONGER * decision.level[slot]
            if not in_episode:
                decision.raised_at[slot], decision.level[slot] = decision.rows[slot], total
                raised[row] = True
        if not in_episode:
            probabilities[row] = 1.0 - np.exp(-total)
        if (options.per_readings > 0.0 or options.per_seconds > 0.0) and decision.rows[slot] > options.warm_up:
            score = 0.0 if in_episode else total
            observe_score(
                decision.threshold,
                slot,
                score,
                raised[row],
                times_s[row],
                options.per_readings,
                options.per_seconds,
            )


decide = compiled(_decide)
