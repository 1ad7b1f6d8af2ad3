"""Actions at a sample count: changes of the model or its update that replay exactly.

An action takes effect after a stated number of learned samples, between two compiled calls, wherever the stream was
cut. In micro-batches that is the end of the group in which the number is reached. Which actions are pending and which
took effect is part of the checkpoint. A restart therefore repeats them at the same samples, and ends with the same
bits. Today thawing frozen layers is the only action.

The number itself must not depend on how the stream was cut. Scores reach the host after a whole batch was learned. So a
part that schedules an action because of a score has to state a number that follows from counts alone, and lies beyond
the batch.
"""

from collections.abc import Mapping
from typing import Protocol

import structlog

from learnd.core.errors import ConfigError
from learnd.core.types import State

log = structlog.get_logger()


class Action(Protocol):
    """A change of the model or its update between two compiled calls."""

    def apply(self) -> None:
        """Make the change. Changes of variables are saved with the variables."""
        ...

    def reapply(self) -> None:
        """Repeat after a restart only what is not in variables; those are restored."""
        ...


class Actions:
    """The actions that can be scheduled, by name, and the sample counts at which they take effect.

    Actions at the same count take effect in the order in which they were scheduled. The compiled update is traced
    again afterwards, because an action may change what is trainable.

    Parameters
    ----------
    known : every action that may be scheduled or restored, by the name that the checkpoint holds
    """

    def __init__(self, known: Mapping[str, Action] | None = None) -> None:
        self._known = dict(known or {})
        self._pending: list[tuple[int, str]] = []
        self._done: list[tuple[int, str]] = []

    def schedule(self, name: str, at_samples: int) -> None:
        """Schedule the action *name* for the moment when *at_samples* samples are learned.

        Raises
        ------
        KeyError
            if there is no such action.
        """
        if name not in self._known:
            raise KeyError(f"no action {name!r}; the known ones are: {', '.join(self._known) or 'none'}")
        self._pending.append((at_samples, name))
        self._pending.sort(key=lambda entry: entry[0])  # stable: equal counts keep their order

    @property
    def pending(self) -> bool:
        """True if any action has not taken effect yet."""
        return bool(self._pending)

    def samples_left(self, learned: int) -> int | None:
        """Return the number of samples to learn before the next action; None if none is pending."""
        return max(0, self._pending[0][0] - learned) if self._pending else None

    def take_effect(self, learned: int) -> bool:
        """Apply every action that is due after *learned* samples; return whether there was one."""
        due = [entry for entry in self._pending if entry[0] <= learned]
        for at_samples, name in due:
            self._known[name].apply()
            log.info("action_applied", always=True, action=name, at_samples=at_samples, samples=learned)
        self._pending = self._pending[len(due) :]
        self._done += due
        return bool(due)

    def state(self) -> State:
        return {"pending": [list(entry) for entry in self._pending], "done": [list(entry) for entry in self._done]}

    def restore(self, state: State) -> bool:
        """Restore *state* and reapply the actions that took effect before it; return whether there were any.

        An action that was scheduled at the start stays scheduled if the state does not know it.

        Raises
        ------
        ConfigError
            if the state has an action that does not exist here.
        """
        pending = [(int(at), str(name)) for at, name in state["pending"]]
        self._done = [(int(at), str(name)) for at, name in state["done"]]
        saved = {name for _, name in [*pending, *self._done]}
        if unknown := saved - self._known.keys():
            raise ConfigError(
                f"learning: the checkpoint has the action {', '.join(sorted(unknown))}, which this configuration does "
                "not have; change it back, or use another data_dir"
            )
        started = [entry for entry in self._pending if entry[1] not in saved]
        self._pending = sorted([*pending, *started], key=lambda entry: entry[0])
        for _, name in self._done:
            self._known[name].reapply()
        return bool(self._done)
