"""The wiring of the learner, with its network, optimizer and averages."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
import tensorflow as tf

from learnd.averaging import AVERAGERS
from learnd.config.settings import ModelRecipe, Settings
from learnd.core.protocols import Averager, Learner, Network
from learnd.core.tensors import TfVariable, Variable
from learnd.learners import LEARNERS
from learnd.learners.actions import Actions
from learnd.learners.answers import AnswerBook
from learnd.learners.averaged import AveragedModel, as_arrays
from learnd.learners.chunk import CompiledChunk
from learnd.learners.controls import LearnerControls
from learnd.learners.ensemble import ChampionAverager, EnsembleUpdate
from learnd.learners.replay import ReplayBuffer
from learnd.learners.settings import AnyLearner
from learnd.learners.standing import newest_rows
from learnd.learners.update import Update
from learnd.models.copies import refresh_copies
from learnd.models.whole_numbers import WholeNumbers
from learnd.runtime.trained_model import TrainedModel
from learnd.transforms.labels import Labels
from learnd.wiring.ensemble import make_ensemble
from learnd.wiring.model import (
    THAW,
    Model,
    make_model,
    make_update,
    named_variables,
    require_no_batch_statistics,
)
from learnd.wiring.origins import describe_origins

log = structlog.get_logger()


class _Owner(Protocol):
    """A part with variables that belong in the checkpoint."""

    def variables(self) -> Mapping[str, TfVariable | Variable]: ...


_XLA_EXTRA = "xla_backend_extra_options"
_ONE_KERNEL = "xla_cpu_small_while_loop_byte_threshold=1000000"
"""By default, only loops that access less than 1024 bytes per iteration become one kernel."""
_XLA_LEVEL = "xla_backend_optimization_level"
_LEVEL = "1"
"""By default XLA compiles at level 3, which takes up to a third longer and is no faster: a wider network with Adam took
38 us per sample at level 3 and 22 at level 1 (`tests/bench/compiler.py`)."""


def configure_tensorflow(learning: AnyLearner) -> None:
    """Configure the threads and XLA options of TensorFlow. Call once per process, before anything is compiled.

    On an update of a small network, two threads use nearly twice the processor time and save no time (MLP 32-16 with
    Adam: 13.1 against 7.2 us of processor time; `tests/bench/threads.py` compares sizes). One update per sample becomes
    1.3 to 7 times faster if XLA makes one kernel of the whole loop. Micro-batches would become up to five times slower,
    because separate kernels are faster for their matrix products (`tests/bench/models.py`).
    """
    tf.config.threading.set_intra_op_parallelism_threads(learning.threads)
    os.environ["XLA_FLAGS"] = xla_flags(os.environ.get("XLA_FLAGS", ""), one_kernel=learning.batch_rows == 1)


def xla_flags(flags: str, *, one_kernel: bool) -> str:
    """Return *flags* with learnd's own added, except where the operator has chosen otherwise.

    >>> xla_flags("--xla_backend_optimization_level=3", one_kernel=False)
    '--xla_backend_optimization_level=3'
    """
    chosen = {_XLA_LEVEL: _LEVEL, **({_XLA_EXTRA: _ONE_KERNEL} if one_kernel else {})}
    return " ".join([flags, *(f"--{name}={value}" for name, value in chosen.items() if name not in flags)]).strip()


@dataclass(frozen=True, slots=True)
class Learning:
    """The wired learner, with its model.

    Attributes
    ----------
    labels : the transform that numbers classes; None if there are none
    variables : all variables that belong in a checkpoint, by a name that is the same in every process
    optimizer : the name of the optimizer's class
    chunk : the compiled update
    controls : what reactions to drift can change
    whole : the inputs, if the model takes whole numbers only
    book : the answers that wait for their truth; None: none does
    """

    network: Network
    model: TrainedModel
    labels: Labels | None
    variables: Mapping[str, Variable | TfVariable]
    optimizer: str
    chunk: CompiledChunk
    controls: LearnerControls
    whole: WholeNumbers | None = None
    book: AnswerBook | None = None


def make_learning(settings: Settings, recipe: ModelRecipe) -> Learning:
    """Return the model of *recipe* with its learner, as configured in *settings*.

    Raises
    ------
    ConfigError
        if building the model shows that a setting is wrong.
    """
    learning, targets = settings.learning, settings.target_count
    model = make_model(recipe, loss=learning.loss)
    network = model.network
    if learning.batch_rows == 1:
        require_no_batch_statistics(network)
    update, averaged, owners = _make_mixture(model, settings) if learning.mixes else _make_single(model, settings)
    log.info("learning_setup", always=True, **describe_origins(model, recipe, learning, update.optimizer))
    actions = Actions({THAW: model.freeze})
    if model.thaw_at is not None:
        actions.schedule(THAW, model.thaw_at)
    book = AnswerBook(settings.output_count, size=settings.most_answers) if settings.most_answers else None
    chunk = CompiledChunk(
        network,
        update,
        averaged,
        batch_rows=learning.batch_rows,
        targets=targets,
        upstream=len(learning.experts.fields),
        compile=learning.compile,
        actions=actions,
        book=book,
    )
    if not learning.compile:
        log.warning("runs_without_xla", note="learning.compile is false, so updates are many times slower")
    labels = None
    if settings.task.has_classes:
        labels = Labels(
            model.labels,
            capacity=settings.output_count,
            weights=learning.class_weights,
            other=settings.task.collecting_class,
        )
    learner: Learner = LEARNERS[learning.mode].load()(chunk, learning)
    named = named_variables(network, update.optimizer)
    owned = {f"{prefix}/{name}": v for prefix, owner in owners.items() for name, v in owner.variables().items()}
    served_state = network.served_state()
    served = {id(v) for v in served_state}
    continuation = {name: v for name, v in named.items() if id(v) not in served}
    name_of = {id(v): name for name, v in named.items()}
    served_names = [name_of[id(v)] for v in served_state]
    trained_model = TrainedModel(
        learner,
        averaged,
        classes=_classes(network, labels),
        refusals=update.refusals,
        weights=lambda: dict(zip(served_names, averaged.weights(), strict=True)),
        continuation=lambda: as_arrays({**continuation, "learned": chunk.learned}),
        mixture=update.mixture,
        chosen=update.chosen,
        refresh=lambda: refresh_copies(network.core),
        retraces=lambda: chunk.retraces,
        batch_rows=learning.batch_rows,
    )
    variables = {**named, **owned, "learned": chunk.learned}
    averages = learning.mixes or settings.averaging.averages
    controls = LearnerControls(network, update, averaged, chunk, variables, averages=averages)
    kind = type(update.optimizer).__name__
    return Learning(network, trained_model, labels, variables, kind, chunk, controls, model.whole, book)


def _make_single(model: Model, settings: Settings) -> tuple[Update, AveragedModel, Mapping[str, _Owner]]:
    """Return the update of one learner, its averages, and the owners of their variables."""
    network, learning = model.network, settings.learning
    averager: Averager = AVERAGERS[settings.averaging.kind].load()(settings.averaging)
    averager.build(network.averaged_weights())
    always = settings.serve == "averaged"
    averaged = AveragedModel(network, averager, batch_rows=learning.batch_rows, always_average=always)
    replay = None
    if learning.replay is not None:
        replay = ReplayBuffer(
            learning.replay,
            rows=learning.batch_rows,
            row_shape=network.row_shape,
            targets=settings.target_count,
            seed=settings.seed,
        )
    newest = None
    if settings.averaging.averages:
        rows = learning.batch_rows
        newest = newest_rows(network.row_shape, settings.target_count, rows=rows, dtype="float64")
    update = make_update(model, learning, averaged, replay, newest)
    owners: dict[str, _Owner] = {"averager": averager, "averaged": averaged, "guard": update.guard}
    optional = {"replay": replay, "newest": newest, "standing": averaged.standing}
    owners |= {name: part for name, part in optional.items() if part is not None}
    return update, averaged, owners


def _make_mixture(model: Model, settings: Settings) -> tuple[EnsembleUpdate, AveragedModel, Mapping[str, _Owner]]:
    """Return the update of an ensemble, the averages of its champion, and the owner of their variables."""
    update = make_ensemble(model, settings)
    averager = ChampionAverager(update)
    averager.build(model.network.averaged_weights())
    return update, AveragedModel(model.network, averager), {"ensemble": update}


def _classes(network: Network, labels: Labels | None) -> Callable[[], tuple[str, ...]]:
    count = network.class_count
    if labels is None or count is None:
        return tuple
    return lambda: labels.names[: int(count.numpy())]
