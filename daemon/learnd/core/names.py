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


def missing_topic(topic: str, servers: Iterable[str], known: Iterable[str]) -> str:
    """Return the message about a topic that does not exist, with the ones that its user may have meant.

    >>> message = missing_topic("boiler", ["a:9092", "b:9092"], ["boilers", "__consumer_offsets"])
    >>> message.partition(" --create")[0]
    'boiler does not exist on a:9092,b:9092; did you mean boilers? `kafka-topics.sh --bootstrap-server a:9092'
    """
    brokers = list(servers)
    near = nearest(topic, [name for name in known if not name.startswith("__")])
    hint = f"; did you mean {' or '.join(near)}? " if near else "; "
    command = f"kafka-topics.sh --bootstrap-server {brokers[0]} --create --topic {topic}"
    return f"{topic} does not exist on {','.join(brokers)}{hint}`{command}` creates it"


def _fold(name: str) -> str:
    return name.casefold().replace("-", "_")


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.lower().split("_"))
