"""Feedback from people: an alarm was correct, was false, or was missing."""

import json
from dataclasses import dataclass
from typing import Any

from learnd.core.errors import UsageError

FILE = "feedback.jsonl"
"""The file in a data_dir that verdicts are appended to."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One statement.

    Attributes
    ----------
    anomaly : whether it was an anomaly
    alarm : the identifier of an alarm; None: the statement is about a key
    key : the key of an anomaly that raised no alarm
    """

    anomaly: bool
    alarm: str | None = None
    key: str | None = None

    def as_line(self) -> str:
        """Return the line for the file, without its end.

        >>> Verdict(False, alarm="boiler.sensors/0/17/state").as_line()
        '{"alarm": "boiler.sensors/0/17/state", "anomaly": false}'
        """
        subject = {"alarm": self.alarm} if self.alarm is not None else {"key": self.key}
        return json.dumps({**subject, "anomaly": self.anomaly})


def verdict_from(line: str) -> Verdict:
    """Return the verdict in *line*.

    >>> verdict_from('{"key": "boiler-3", "anomaly": true}')
    Verdict(anomaly=True, alarm=None, key='boiler-3')

    Raises
    ------
    UsageError
        if it is none; the message says what is wrong.
    """
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise UsageError(f"no JSON: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("anomaly"), bool):
        raise UsageError('anomaly is missing; write {"alarm": ID, "anomaly": false}')
    alarm, key = value.get("alarm"), value.get("key")
    if isinstance(alarm, str) and key is None:
        return Verdict(value["anomaly"], alarm=alarm)
    if isinstance(key, str) and alarm is None and value["anomaly"]:
        return Verdict(True, key=key)
    raise UsageError("name an alarm by its id; or, for an anomaly that raised no alarm, a key")
