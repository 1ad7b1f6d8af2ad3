"""Metrics that say whether the daemon can work, and whether there is work."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Gauge

_Read = Callable[[], float]


class HealthMetrics:
    """Gauges that are computed when they are read, so that they stay true while the main loop stands still."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"learnd_{name}", text, labels, registry=registry)

        self._ready = gauge("ready", "1 while it learns, is connected and can save, as /readyz says; else 0.")
        self._connected = gauge(
            "source_connected", "1 while the source answers: for Kafka the broker, with the topics; NaN before reading."
        )
        self._age = gauge(
            "accepted_record_age_seconds",
            "Time since a record was last accepted, or since reading began if none was; NaN before reading.",
        )
        self._share = gauge(
            "rejected_share", "Share of the last 1000 records, or some more, that was rejected; NaN before the first."
        )
        self._catch_up = gauge(
            "catch_up_seconds",
            "Time until the waiting records will have been learned, at the rates of the last 30 s; 0 without a "
            "backlog, +Inf while it grows, NaN while unknown.",
        )
        self._pending = gauge(
            "deliveries_pending", "Dead letters, predictions and alarms that are not delivered yet.", ("sink",)
        )
        for unknown in (self._connected, self._age, self._share, self._catch_up):
            unknown.set(float("nan"))

    def follow(
        self,
        *,
        ready: Callable[[], bool],
        connected: _Read,
        accepted_age_s: _Read,
        rejected_share: _Read,
        catch_up_s: _Read,
        pending: Mapping[str, Callable[[], int]],
    ) -> None:
        """Read the gauges from these functions from now on; *pending* is by sink."""
        self._ready.set_function(lambda: float(ready()))
        self._connected.set_function(connected)
        self._age.set_function(accepted_age_s)
        self._share.set_function(rejected_share)
        self._catch_up.set_function(catch_up_s)
        for sink, count in pending.items():
            self._pending.labels(sink).set_function(count)
