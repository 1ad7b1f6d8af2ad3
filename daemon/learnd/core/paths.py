"""Paths to values inside nested JSON records. Quick to import: no NumPy."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

_STEP = re.compile(
    r"""\.?(?P<name>[^.\[\]"']+) | \[(?P<index>-?\d+)\] | \.?\[?(?P<quote>["'])(?P<quoted>.+?)(?P=quote)\]?
    | \[(?P<field>[^=\[\]]+)=(?P<value>[^\[\]]+)\]""",
    re.VERBOSE,
)
_FORM = "it is made of names, indices and choices, such as payload.after.temp, values[2] or metrics[name=temp].value"


@dataclass(frozen=True, slots=True)
class Choice:
    """A step to the one element of a list whose *field* is *value*."""

    field: str
    value: str


Step = str | int | Choice


@lru_cache(maxsize=1024)
def parse_path(text: str) -> tuple[Step, ...]:
    """Return the steps of a path.

    >>> parse_path('payload["a.b"].values[2]'), parse_path("metrics[name=temp].value")
    (('payload', 'a.b', 'values', 2), ('metrics', Choice(field='name', value='temp'), 'value'))

    Raises
    ------
    ValueError
        if *text* is no path.
    """
    steps: list[Step] = []
    place = 0
    while place < len(text):
        match = _STEP.match(text, place)
        if match is None or (text[place] == "." and not steps):
            raise ValueError(f"{text!r} is no path at {text[place:]!r}; {_FORM}")
        place = match.end()
        if match["index"] is not None:
            steps.append(int(match["index"]))
        elif match["field"] is not None:
            steps.append(Choice(match["field"].strip(), match["value"].strip(" \"'")))
        else:
            steps.append(match["name"] if match["name"] is not None else match["quoted"])
    if not steps:
        raise ValueError(f"an empty path; {_FORM}")
    return tuple(steps)


class NoValueError(Exception):
    """A record without a value at a path; the message says where the path ends."""


def follow(record: object, steps: Sequence[Step]) -> object:
    """Return the value at the path.

    >>> follow({"metrics": [{"name": "temp", "value": 21.5}]}, parse_path("metrics[name=temp].value"))
    21.5

    Raises
    ------
    NoValueError
        if there is none.
    ValueError
        if several elements fit one choice.
    """
    value = record
    for count, step in enumerate(steps):
        try:
            value = _next(value, step)
        except (KeyError, IndexError, TypeError):
            raise NoValueError(f"{_text(steps[:count])} has no {_text((step,))}") from None
    return value


def _next(value: object, step: Step) -> object:
    if isinstance(step, Choice):
        if not isinstance(value, list):
            raise TypeError
        fitting = [e for e in value if isinstance(e, Mapping) and step.field in e and str(e[step.field]) == step.value]
        if len(fitting) > 1:
            raise ValueError(f"{len(fitting)} elements have {step.field}={step.value}; a path must lead to one value")
        return fitting[0]
    if isinstance(step, str):
        if not isinstance(value, Mapping):
            raise TypeError
        return value[step]
    if not isinstance(value, list):
        raise TypeError
    return value[step]


def _text(steps: Sequence[Step]) -> str:
    """Return steps as text, for messages."""
    if not steps:
        return "the record"
    texts = []
    for step in steps:
        if isinstance(step, Choice):
            texts.append(f"[{step.field}={step.value}]")
        else:
            texts.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(texts).lstrip(".")
