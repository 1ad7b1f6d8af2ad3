"""The update of ``learning.mode: auto``: several members learn each sample, and a pool of experts answers.

Two networks of the same architecture differ in what they replay. The recent one replays the newest samples and follows
drift. The reservoir one replays a uniform choice of all samples, and is better while the stream stays the same. Where
the recent one is clearly better, what the reservoir holds is no longer true: the reservoir then takes over everything
from the recent network. No drift detector is needed.

Published are the weights of the network, or its average, that predict best while they stand still. Experts such as the
last value exist in the daemon alone: a published model cannot know the last truth.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from learnd.core.protocols import Network
from learnd.core.snapshot import ChosenWeights, MixtureState
from learnd.core.tensors import Optimizer, Tensor, TfVariable, Variable
from learnd.learners.linear_member import LinearMember
from learnd.learners.member import Member
from learnd.learners.pool import Mixture, Pool
from learnd.learners.replay import ReplayBuffer
from learnd.learners.standing import Standing
from learnd.learners.update import UpdateResult, once
from learnd.learners.weighting import FADING, Sample

DRIFT = 1.2
"""Ratio of the reservoir network's error to the recent one's, at which the reservoir is emptied."""
_FIRST_SAMPLES = 1000


class EnsembleUpdate:
    """The update of an ensemble, one sample at a time.

    Parameters
    ----------
    recent : the network's own core
    reservoir : a second core; None for a model that is too expensive to learn twice
    newest : the newest rows, for a model without replay, whose recent member stores none
    always_average : predict with the average of the chosen network, even where its live weights are chosen
    """

    def __init__(
        self,
        network: Network,
        recent: Member,
        reservoir: Member | None,
        linear: LinearMember,
        pool: Pool,
        newest: ReplayBuffer | None = None,
        *,
        always_average: bool = False,
    ) -> None:
        self._always_average = always_average
        self._network = network
        self.recent = recent
        self.reservoir = reservoir
        self._linear = linear
        self.pool = pool
        self.optimizer = recent.optimizer
        networks = 1 if reservoir is None else 2
        self._fading = tf.Variable(tf.zeros(2 * networks), trainable=False)
        """Fading losses of the networks: of their live weights, then of their averages."""
        self._samples = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._emptied_at = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.drifts = tf.Variable(0, dtype=tf.int64, trainable=False)
        """Number of times that the reservoir was emptied."""
        self._newest = newest
        newest = newest if newest is not None else recent.replay
        assert newest is not None
        self._standing = Standing(
            [*self._names(), *(f"{name}_average" for name in self._names())],
            self._candidates,
            recent.trainable_variables,
            self._losses_of,
            newest,
            first=networks,
        )

    def networks(self) -> list[Member]:
        """Return the members that are networks."""
        return [self.recent] if self.reservoir is None else [self.recent, self.reservoir]

    def _names(self) -> list[str]:
        return ["recent"] if self.reservoir is None else ["recent", "reservoir"]

    def choice(self) -> Tensor:
        """Return the number of the weights that are published, among those of `published_candidates`."""
        chosen: Tensor = tf.convert_to_tensor(self._standing.choice)
        return chosen

    def published_candidates(self) -> list[list[Tensor]]:
        """Return the weights that may be published: the networks' own, then their averages."""
        own = [[tf.convert_to_tensor(v.value) for v in member.trainable_variables] for member in self.networks()]
        return [*own, *([average for _, average in member.pairs()] for member in self.networks())]

    def _candidates(self) -> list[list[Tensor]]:
        return self.published_candidates()

    def _losses_of(self, weights: Sequence[tuple[Variable, Tensor]], newest: ReplayBuffer) -> Tensor:
        inputs, targets, _ = newest.rows()
        return self.recent.loss_with(weights, inputs, targets)

    def test(self, x: Tensor, y: Tensor, slots: Tensor, upstream: Tensor) -> UpdateResult:
        """Predict and evaluate a row, without learning from it."""
        inputs = self._network.core_inputs(x)
        live = [member.answer(inputs) for member in self._members()]
        outputs = tf.concat([*live, *self._averaged_answers(inputs)], axis=0)
        return self._result(self.pool.predict(Sample(x, y, slots, outputs, upstream)))

    def __call__(self, x: Tensor, y: Tensor, weights: Tensor, slots: Tensor, upstream: Tensor) -> UpdateResult:
        """Predict and evaluate a row, then learn from it."""
        network = self._network
        inputs, targets = network.core_inputs(x), network.core_targets(x, y)
        averaged = self._averaged_answers(inputs)
        live = [member.learn(inputs, targets, weights) for member in self._members()]
        sample = Sample(x, y, slots, tf.concat([*live, *averaged], axis=0), upstream)
        mixture = self.pool.predict(sample)
        result = self._result(mixture)
        self._follow(self.pool.learn(sample, mixture))
        if self._newest is not None:
            self._newest.store(inputs, targets, weights)
        network.observe(x, y)
        return result

    def _members(self) -> list[Member | LinearMember]:
        return [*self.networks(), self._linear]

    def _averaged_answers(self, inputs: Tensor) -> list[Tensor]:
        return [member.averaged_answer(inputs) for member in self._members()]

    def _result(self, mixture: Mixture) -> UpdateResult:
        networks = len(self.networks())
        # The members' answers are those of the networks, of the linear one, and again of their averages.
        of_members = [*range(networks), *range(networks + 1, 2 * networks + 1)]
        choice = self.choice()
        if self._always_average:
            choice = choice % networks + networks
        chosen = tf.gather(tf.constant(of_members), choice)[None]
        losses, predictions = (tf.gather(v, chosen) for v in (mixture.member_losses, mixture.member_predictions))
        return UpdateResult(mixture.predictions, mixture.losses, losses, mixture.residuals, predictions)

    def _follow(self, losses: Tensor) -> None:
        """Follow the networks' fading losses."""
        networks, count = len(self.networks()), len(self._members())
        samples = self._samples + 1
        of_networks = tf.concat([losses[:networks], losses[count : count + networks]], axis=0)
        share = 1.0 / tf.minimum(tf.cast(samples, tf.float32), FADING)
        self._fading.assign(self._fading + share * (of_networks - self._fading))
        self._samples.assign_add(1)

    def settle_due(self) -> Tensor:
        """Return a boolean tensor: true if `settle` has to run before the next sample."""
        due: Tensor = self._network.scales_due() | self._is_stale() | self._standing.due()
        return due

    def settle(self) -> None:
        """Renew the scales, empty the reservoir, and choose what is published, where that is due."""
        once(self._network.scales_due(), self._network.renew_scales)
        if (reservoir := self.reservoir) is not None:
            once(self._is_stale(), lambda: self._empty(reservoir))
        once(self._standing.due(), self._standing.evaluate)

    def _is_stale(self) -> Tensor:
        """Return a boolean tensor: true if the reservoir no longer describes the stream."""
        if self.reservoir is None:
            return tf.constant(False)  # type: ignore[no-any-return]  # TensorFlow has no types
        samples = self._samples
        settled = (samples > _FIRST_SAMPLES) & (samples - self._emptied_at > int(FADING))
        stale: Tensor = settled & (self._fading[2] * DRIFT < self._fading[3])
        return stale

    def _empty(self, reservoir: Member) -> None:
        reservoir.become(self.recent)
        self._fading.assign(tf.gather(self._fading, [0, 0, 2, 2]))
        self._emptied_at.assign(self._samples)
        self.drifts.assign_add(1)

    def refusals(self) -> tuple[int, int]:
        """Return the numbers of refused updates and of rollbacks of all networks since the model began."""
        guards = [member.guard for member in self.networks()]
        refused = sum(int(guard.refused.value().numpy()) for guard in guards)
        return refused, sum(int(guard.rollbacks.value().numpy()) for guard in guards)

    def weigh_replay(self, factor: float) -> bool:
        """Multiply the weights of the reservoir's samples by *factor*; for 0 the newest samples replace them.

        Return False if there is no reservoir. Between two compiled calls.
        """
        recent = self.recent.replay
        if self.reservoir is None or self.reservoir.replay is None or recent is None:
            return False
        if factor > 0.0:
            self.reservoir.replay.weigh(factor)
        else:
            self.reservoir.replay.become(recent)
        return True

    def restart_averages(self) -> None:
        """Let all averages begin again. Between two compiled calls."""
        for member in self._members():
            member.restart()

    def optimizers(self) -> list[Optimizer]:
        """Return the optimizers of all networks."""
        return [member.optimizer for member in self.networks()]

    def mixture(self) -> MixtureState | None:
        """Return the weights of the experts, the champion, and the number of drifts."""
        weights = self.pool.weights().numpy().tolist()
        return MixtureState(dict(zip(self.pool.names, weights, strict=True)), int(self.drifts.numpy()))

    def chosen(self) -> ChosenWeights:
        """Return which weights are published, and the losses of all candidates."""
        return self._standing.state()

    def variables(self) -> Mapping[str, TfVariable | Variable]:
        """Return the variables for the checkpoint by name, without the weights and the optimizer of the network."""
        named: dict[str, TfVariable | Variable] = {
            "fading": self._fading,
            "samples": self._samples,
            "emptied_at": self._emptied_at,
            "drifts": self.drifts,
        }
        parts: dict[str, Member | LinearMember | Pool | Standing | ReplayBuffer] = {
            "standing": self._standing,
            "recent": self.recent,
            "linear": self._linear,
            "pool": self.pool,
        }
        if self._newest is not None:
            parts["newest"] = self._newest
        if (reservoir := self.reservoir) is not None:
            parts["reservoir"] = reservoir
            named |= {f"reservoir/weight/{i}": v for i, v in enumerate(reservoir.core.variables)}
            named |= {
                f"reservoir/optimizer/{i}": v
                for i, v in enumerate(reservoir.optimizer.variables)
                if not v.path.endswith("learning_rate")
            }
        return named | {f"{part}/{name}": v for part, owner in parts.items() for name, v in owner.variables().items()}


class ChampionAverager:
    """The averager of an ensemble: the weights that predict best while they stand still, which are published."""

    every_samples: int | None = None

    def __init__(self, update: EnsembleUpdate) -> None:
        self._update = update
        self._weights: Sequence[Variable] = ()

    def build(self, weights: Sequence[Variable]) -> None:
        """Remember the averaged *weights*; the members have made the averages."""
        self._weights = weights

    def observe(self, due: Tensor) -> None:
        """Take no snapshot: the members average at every update."""

    def restart(self) -> None:
        """Let the members' averages begin again."""
        self._update.restart_averages()

    def ready(self) -> Tensor:
        """Return a boolean scalar: true after the first update."""
        return self._update.recent.ready()

    def averages(self) -> Sequence[Tensor] | None:
        """Return the chosen weights in the order of the weights."""
        chosen = self._update.choice()
        average_of = {
            id(variable): tf.gather(tf.stack(values), chosen)
            for variable, *values in zip(
                self._update.recent.trainable_variables, *self._update.published_candidates(), strict=True
            )
        }
        return [average_of.get(id(v), tf.convert_to_tensor(v.value)) for v in self._weights]

    def variables(self) -> Mapping[str, TfVariable]:
        """Return an empty mapping: the state is the members'."""
        return {}
