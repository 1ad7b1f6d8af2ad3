"""What an exporter is given: a model with its state, and how it goes on learning."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learnd.core.types import Float32Array


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may become an export.

    Attributes
    ----------
    network : see `learnd.tasks.network.Network`; holds the averaged weights
    learn : one optimizer step on raw rows, (n, *row_shape), and their targets, (n, targets); returns the losses from
        before, (n,). With ``observe=False`` the scales stay as they are. Traced.
    optimizer : Keras', with the slots of the live model
    state : every variable that `learn` reads or writes, by the names that a checkpoint gives them
    features : names, in the order of the model's inputs
    targets : numbers in one target row; 0 where the inputs are their own targets
    classes : how many there are, of a classification
    batch_rows : rows of one update of the daemon's
    examples : recent raw inputs, (m, *row_shape), others than those that the export is judged on
    """

    network: Any
    learn: Callable[..., Any]
    optimizer: Any
    state: Mapping[str, Any]
    features: Sequence[str]
    targets: int
    classes: int | None
    batch_rows: int
    examples: Float32Array

    def changing(self) -> tuple[list[str], list[Any]]:
        """Names and TensorFlow's own variables of `state`, in the order of the names."""
        names = sorted(self.state)
        return names, [raw(self.state[name]) for name in names]

    def every_variable(self) -> list[Any]:
        """TensorFlow's own variables of all that the functions read: a module must hold them to be saved."""
        return [raw(v) for v in (*self.network.variables, *self.optimizer.variables, *self.state.values())]


def raw(variable: Any) -> Any:
    """The TensorFlow variable inside a Keras one; TensorFlow's own as it is."""
    return getattr(variable, "value", variable) if hasattr(variable, "path") else variable


def argument_names(wanted: Sequence[str]) -> dict[str, str]:
    """What a signature calls its arguments: names that every runtime takes, each once; TensorFlow tells no case.

    >>> argument_names(["t", "temp C", "temp.C", "1st", "ä", "T"])
    {'t': 't', 'temp C': 'temp_C', 'temp.C': 'temp_C_2', '1st': 'f_1st', 'ä': 'f__', 'T': 'T_2'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for one in wanted:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", one)
        if not plain[:1].isalpha() or plain == "self":
            plain = f"f_{plain}"
        number = 1
        name = plain
        while name.lower() in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.lower())
        names[one] = name
    return names
