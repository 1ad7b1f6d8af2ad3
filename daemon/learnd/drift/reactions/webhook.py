"""Reaction: a request to an address, which is delivered at least once."""

import threading
import urllib.error
import urllib.request
from dataclasses import asdict
from typing import Any

import msgspec
import structlog

from learnd.core.types import State
from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Surroundings
from learnd.drift.reactions.settings import WebhookSettings

log = structlog.get_logger()

_FIRST_PAUSE_S = 1.0
"""Pause after the first failed attempt; it doubles with each further one."""
_MOST_PENDING = 1000


class Webhook:
    """POST requests with the drift as a JSON object, sent by a thread of its own.

    What is not delivered yet is part of the checkpoint, so a request may come twice, and one is lost only after all its
    attempts failed. The address is a secret: it may hold a token.
    """

    def __init__(self, settings: WebhookSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._name = surroundings.name
        self._pending: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def react(self, drift: Drift, samples: int) -> bool:
        line = {"event": "drift_detected", "name": self._name, **asdict(drift), "at_samples": samples}
        with self._changed:
            self._pending = [*self._pending, line][-_MOST_PENDING:]
        self._start()
        return True

    def review(self, samples: int) -> None:
        """Send what an earlier process has not delivered."""
        self._start()

    def _start(self) -> None:
        with self._changed:
            if self._pending and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._send_all, name="learnd-webhook", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if self._closed:
                    return
                line = self._pending[0]
            if not self._delivered(line):
                return
            with self._changed:
                self._pending = [each for each in self._pending if each is not line]

    def _delivered(self, line: dict[str, Any]) -> bool:
        """Send *line* until it is accepted or given up; return False if the daemon ends first."""
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, self._settings.attempts + 1):
            error = self._post(line)
            if not error:
                return True
            log.warning("webhook_failed", attempt=attempt, of=self._settings.attempts, error=error)
            if attempt == self._settings.attempts:
                log.error("webhook_given_up", samples=line["samples"], on=line["on"])
                return True
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, timeout=pause_s):
                    return False
            pause_s *= 2.0
        return True

    def _post(self, line: dict[str, Any]) -> str:
        """Send one request; return what went wrong, without the address."""
        request = urllib.request.Request(
            self._settings.url.get_secret_value(),
            data=msgspec.json.encode(line),
            headers={"Content-Type": "application/json", "User-Agent": "learnd"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=self._settings.timeout_s):
                return ""
        except urllib.error.HTTPError as error:
            return f"HTTP status {error.code}"
        except (OSError, ValueError) as error:
            return type(error).__name__

    def close(self) -> None:
        """End the thread after the attempt that it is making."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def state(self) -> State:
        with self._changed:
            return {"pending": list(self._pending)}

    def restore(self, state: State) -> None:
        with self._changed:
            self._pending = list(state["pending"])
