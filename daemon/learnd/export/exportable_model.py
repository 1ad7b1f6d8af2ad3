"""The input of every exporter: a model with its state, and the function that trains it further."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from learnd.core.protocols import Network
from learnd.core.tensors import Array, KerasModel, Layer, Optimizer, Tensor, TfVariable, Variable
from learnd.core.types import Float32Array


class ExportableLayer(Layer, Protocol):
    """The members of a Keras layer that exporters use to rebuild it."""

    @classmethod
    def from_config(cls, config: dict[str, Any], /) -> Layer: ...


class ExportableCore(KerasModel, Protocol):
    """The members of a Keras model that exporters use to rebuild it."""

    def _flatten_layers(self, include_self: bool = True) -> Iterable[ExportableLayer]: ...

    def get_weights(self) -> list[Array]: ...

    def set_weights(self, weights: Sequence[Array], /) -> None: ...


class ExportableNetwork(Network, Protocol):
    """A network with the members that exporters use besides; `learnd.tasks.network.TaskNetwork` documents them."""

    @property
    def core(self) -> ExportableCore: ...

    def answer(self, x: Tensor, /, *, training: bool) -> Tensor: ...

    def scales(self) -> Mapping[str, Mapping[str, Any]]: ...

    def symbolic(
        self, x: Tensor, core: KerasModel, /
    ) -> tuple[Mapping[str, Tensor], Mapping[str, object], Mapping[str, float]]: ...


class LearnFunction(Protocol):
    """One traced optimizer step on raw rows, (n, *row_shape), and their targets, (n, targets).

    Returns the losses before the step, (n,). With ``observe=False`` the scales do not change.
    """

    def __call__(self, x: Tensor, y: Tensor, /, *, observe: bool = True) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class ExportableModel:
    """A model with its state, ready to be written in any format.

    Attributes
    ----------
    network : a `learnd.core.protocols.Network` with the averaged weights
    learn : one optimizer step, see `LearnFunction`
    optimizer : a Keras optimizer with the slots of the live model
    state : every variable that `learn` reads or writes, by its name in a checkpoint
    features : names, in the order of the model's inputs
    gaps : for each feature, whether NaN stands for its mean
    targets : numbers in one target row; 0 if the inputs are their own targets
    classes : number of classes; None unless the task is a classification
    batch_rows : rows in one update of the daemon
    examples : recent raw inputs, (m, *row_shape); none of the rows that verification compares
    """

    network: ExportableNetwork
    learn: LearnFunction
    optimizer: Optimizer
    state: Mapping[str, Variable | TfVariable]
    features: Sequence[str]
    gaps: Sequence[bool]
    targets: int
    classes: int | None
    batch_rows: int
    examples: Float32Array

    def state_variables(self) -> tuple[list[str], list[TfVariable]]:
        """Return the names in `state`, sorted, and their TensorFlow variables in the same order."""
        names = sorted(self.state)
        return names, [tf_variable(self.state[name]) for name in names]

    def all_variables(self) -> list[TfVariable]:
        """Return the TensorFlow variables of everything that the functions read.

        A `tf.Module` must hold them, because `tf.saved_model.save` saves no variable that it cannot reach.
        """
        variables = (*self.network.variables, *self.optimizer.variables, *self.state.values())
        return [tf_variable(v) for v in variables]


def tf_variable(variable: Any) -> TfVariable:
    """Return the TensorFlow variable inside a Keras variable, or *variable* itself if it is TensorFlow's already."""
    unwrapped: TfVariable = variable.value if hasattr(variable, "path") else variable
    return unwrapped


def argument_names(names: Sequence[str]) -> dict[str, str]:
    """Return for each of *names* the argument name that signatures use for it.

    Every runtime accepts these names, and no two of them are equal. They differ by more than upper and lower case,
    which TensorFlow does not distinguish.

    >>> argument_names(["t", "temp C", "temp.C", "1st", "ä", "T"])
    {'t': 't', 'temp C': 'temp_C', 'temp.C': 'temp_C_2', '1st': 'f_1st', 'ä': 'f__', 'T': 'T_2'}
    """
    arguments: dict[str, str] = {}
    used: set[str] = set()
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not plain[:1].isalpha() or plain == "self":
            plain = f"f_{plain}"
        number = 1
        argument = plain
        while argument.lower() in used:
            number += 1
            argument = f"{plain}_{number}"
        used.add(argument.lower())
        arguments[name] = argument
    return arguments
