"""The nearest of several names, for messages about a name that is not one of them."""

import difflib
import re
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest of *known*; nothing if none is close.

    >>> suggestion("hiden", ["hidden", "kind"]), suggestion("lr", ["momentum", "learning_rate"])
    ('; did you mean hidden?', '; did you mean learning_rate?')
    """
    names = list(known)
    folded = {_fold(other): other for other in reversed(names)}
    close = difflib.get_close_matches(_fold(name), folded, n=1)
    initials = [other for other in names if _initials(other) == name.lower() and len(name) > 1]
    found = [folded[near] for near in close] or initials
    return f"; did you mean {found[0]}?" if found else ""


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return the names of *known* that resemble *name*, the closest first; also those that contain one of its words.

    >>> nearest("boiler.sensor", ["boiler.sensors", "sensor-boiler", "orders"])
    ['boiler.sensors', 'sensor-boiler']
    """
    names = sorted({*known})
    close = difflib.get_close_matches(name, names, n=count)
    words = {word for word in re.split(r"[^a-z0-9]+", name.lower()) if len(word) > 3}
    related = [other for other in names if other not in close and any(word in other.lower() for word in words)]
    return [*close, *related][:count]


def _fold(name: str) -> str:
    return name.casefold().replace("-", "_")


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.lower().split("_"))
