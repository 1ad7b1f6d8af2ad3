"""The tables of `tests.bench.anomaly`."""

from typing import Any

from tests.bench.sides import markdown  # isort: skip - sets the log level

import numpy as np

from tests.bench.anomaly_figures import Figures

Results = dict[str, dict[str, Any]]
"""By stream and seed: the figures of each side."""


def _sides(results: Results) -> list[str]:
    return list(dict.fromkeys(side for measured in results.values() for side in measured["sides"]))


def _found(own: list[Figures], side: str) -> str:
    parts = [measured["sides"][side] for measured in own if side in measured["sides"]]
    if not parts:
        return ""
    delays = [delay for part in parts for kind in part["delays"].values() for delay in kind]
    false, normal = (sum(part[name] for part in parts) for name in ("false", "normal"))
    hits = sum(delay is not None for delay in delays)
    return (f"{hits} of {len(delays)}; " if delays else "") + f"{1e5 * false / max(normal, 1):.0f}"


def found_table(results: Results) -> str:
    """Return anomalies found, and false alarms per 100 000 readings, by stream, for the chosen seed and the others."""
    sides, rows = _sides(results), []
    for name in dict.fromkeys(measured["stream"] for measured in results.values()):
        for chosen in (True, False):
            own = [part for part in results.values() if part["stream"] == name and (part["seed"] == 0) == chosen]
            if own:
                rows.append([name, "looked at" if chosen else "held out", *(_found(own, side) for side in sides)])
    return markdown(["stream", "seeds", *sides], rows)


def delay_table(results: Results) -> str:
    """Return the median delay in readings by kind of anomaly, with the share that was found where it is not all."""
    sides = _sides(results)
    delays: dict[tuple[str, str], dict[str, list[int | None]]] = {}
    for measured in results.values():
        group = measured["stream"].split(":")[0]
        for side, own in measured["sides"].items():
            for kind, each in own["delays"].items():
                delays.setdefault((group, kind), {}).setdefault(side, []).extend(each)
    rows = []
    for (group, kind), by_side in delays.items():
        cells = []
        for side in sides:
            each = by_side.get(side, [])
            hits = [delay for delay in each if delay is not None]
            share = "" if len(hits) == len(each) else f" ({len(hits)} of {len(each)})"
            cells.append(f"{np.median(hits):.0f}{share}" if hits else "none" if each else "")
        rows.append([group, kind, *cells])
    return markdown(["stream", "anomaly", *sides], rows)


def held_table(results: Results) -> str:
    """Return what learnd's state head did while each kind of anomaly lasted."""
    by_kind: dict[tuple[str, str], list[list[float]]] = {}
    for measured in results.values():
        for kind, rows in measured.get("held", {}).items():
            by_kind.setdefault((measured["stream"].split(":")[0], kind), []).extend(rows)
    columns = ["stream", "anomaly", "rows in alarm", "loss at its start", "at its end", "after it", "rows until normal"]
    lines = [
        [group, kind, f"{100 * np.nanmean([row[0] for row in rows]):.0f} %"]
        + [float(np.nanmedian([row[i] for row in rows])) for i in range(1, 5)]
        for (group, kind), rows in by_kind.items()
    ]
    return markdown(columns, lines)


def temperature_table(results: Results) -> str:
    """Return NAB's scores, the windows found, false alarms a week and the warning before the failure."""
    lines = []
    for measured in results.values():
        if measured["stream"] != "machine temperature":
            continue
        for side, own in measured["sides"].items():
            delays = own["delays"].values()
            scores = [f"{own['nab'][profile]:.1f}" for profile in own["nab"]]
            hits = sum(kind[0] is not None for kind in delays)
            weeks = own["normal"] / 2016
            early = "missed" if own["early_h"] is None else f"{own['early_h']:.1f}"
            lines.append([side, f"{hits} of 4", f"{own['false'] / weeks:.2f}", early, *scores])
    titles = ["windows found", "false alarms per week", "hours before the failure"]
    return markdown(["detector", *titles, "NAB standard", "low FP", "low FN"], lines)


def tables(results: Results) -> str:
    """Return all tables."""
    parts = {
        "Anomalies found; false alarms per 100 000 readings:": found_table,
        "Readings until the alarm, median:": delay_table,
        "learnd's state while an anomaly lasts (losses in units of the usual one):": held_table,
        "The machine's temperature:": temperature_table,
    }
    return "\n\n".join(f"{title}\n\n{table(results)}" for title, table in parts.items())
