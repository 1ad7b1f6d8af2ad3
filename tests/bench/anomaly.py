"""Alarms on streams with known anomalies, next to other detectors, in one pass.

learnd has its default configuration: a forecast of 64 readings, which is longer than a cycle; of several columns one of
16, because their relations show at once and 64 readings of each would cost more. The others take one rate of false
alarms, one in 2000 readings, fixed beforehand: `tests/bench/anomaly_rivals.py` has them. Alarms of all sides are
counted alike: flags within 100 readings are one alarm, which is right if it begins within an anomaly.
`python -m tests.bench.anomaly` runs it all; with

    --streams NAMES   these streams only, between commas
    --sides NAMES     these sides only
    --seeds N         seeds per made stream (2)
    --results FILE    figures as JSON: those that are not measured now are taken from it, and it is updated
    --stored          measure nothing; the tables come from ``--results``
    --markdown FILE   write the tables to this file too

The side ``learnd at a rate`` is learnd with ``false_alarms_per: 2000``; it runs only if it is named. Needs the extra
`bench`. Each stream has a child process.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import learnd
from tests.bench.anomaly_figures import figures, held, rows_by_key
from tests.bench.anomaly_rivals import PER_READINGS, RIVALS, flagged
from tests.bench.anomaly_streams import STREAMS, Watched
from tests.bench.anomaly_tables import Results, tables
from tests.bench.nab_score import nab_scores

LEARND, AT_A_RATE = "learnd", "learnd at a rate"
DEFAULT_SIDES = (LEARND, *RIVALS)


def _learnd(watched: Watched, alarms: dict[str, Any]) -> dict[str, Any]:
    """Return losses, probabilities, rows at which alarms of any head begin, and states of learnd."""
    names = [f"x{i}" for i in range(watched.x.shape[1])]
    settings = learnd.from_dict(
        {
            "source": {"kind": "simulator"},
            "decode": {"kind": "json", "time": "ts", **({"key": "key"} if watched.keys else {})},
            "features": names,
            "task": {"kind": "forecast", "window": watched.window},
            "model": {"kind": "mlp"},
            "alarms": alarms,
        }
    )
    keys = watched.keys or [""] * len(watched.x)
    rows = zip(watched.times_s.tolist(), keys, watched.x.tolist(), strict=True)
    records = [{"ts": ts, "key": key, **dict(zip(names, x, strict=True))} for ts, key, x in rows]
    lines = learnd.run(settings, records, temporary=True).predictions
    count = len(watched.x)
    losses, probabilities = np.full(count, np.nan), np.zeros(count)
    flags, active = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    lasting: dict[str, tuple[bool, bool]] = {}
    for line in lines:
        row = line["offset"]
        losses[row], probabilities[row] = line["score"], line["anomaly_probability"]
        active[row] = line["alarm"]
        now, before = (line["alarm"], bool(line["sensor_faults"])), lasting.get(line["key"], (False, False))
        flags[row] = line["onset"] or (now[0] and not before[0]) or (now[1] and not before[1])
        lasting[line["key"]] = now
    return {"losses": losses, "scores": probabilities, "flags": flags, "active": active}


def _rival(name: str, watched: Watched, losses: Any, seed: int) -> dict[str, Any]:
    scores, flags = np.zeros(len(watched.x)), np.zeros(len(watched.x), np.bool_)
    for rows in rows_by_key(watched).values():
        scores[rows] = RIVALS[name](watched.x[rows], losses[rows], seed)
        flags[rows] = flagged(scores[rows])
    return {"scores": scores, "flags": flags}


def _early_h(watched: Watched, flags: Any) -> float | None:
    """Return the hours from the first alarm of the last window to its middle, where the failure is."""
    last = watched.anomalies[-1]
    rows = np.flatnonzero(flags[last.start : last.stop])
    if not len(rows):
        return None
    middle_s = watched.times_s[(last.start + last.stop) // 2]
    return float(middle_s - watched.times_s[last.start + rows[0]]) / 3600.0


def measure(name: str, seed: int, sides: Sequence[str]) -> dict[str, Any]:
    """Return the figures of *sides* on a stream."""
    watched = STREAMS[name](seed)
    measured: dict[str, Any] = {"stream": name, "seed": seed, "sides": {}}
    losses = np.full(len(watched.x), np.nan)
    if LEARND in sides or "likelihood of the loss" in sides:
        own = _learnd(watched, {})
        losses = own["losses"]
        measured["held"] = held(watched, own["active"], losses)
    for side in sides:
        if side == AT_A_RATE:
            run = _learnd(watched, {"false_alarms_per": PER_READINGS})
        else:
            run = own if side == LEARND else _rival(side, watched, losses, seed)
        found = figures(watched, run["flags"])
        if name == "machine temperature":
            found["nab"] = nab_scores(run["scores"], [(each.start, each.stop) for each in watched.anomalies])
            found["early_h"] = _early_h(watched, run["flags"])
        measured["sides"][side] = found
    return measured


def _measure_in_child(name: str, seed: int, sides: Sequence[str]) -> dict[str, Any]:
    """Measure in a process of its own."""
    options = ["--child", "--streams", name, "--sides", ",".join(sides), "--seeds", str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.anomaly", *options], stdout=subprocess.PIPE, text=True, check=True
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _stored(results_file: Path | None) -> Results:
    if results_file is None or not results_file.exists():
        return {}
    stored: Results = json.loads(results_file.read_text())
    return stored


def compare(names: Sequence[str], sides: Sequence[str], seeds: int, results_file: Path | None) -> Results:
    """Measure *sides* on the streams *names*; return all figures."""
    results = _stored(results_file)
    for name in names:
        for seed in range(1 if name == "machine temperature" else seeds):
            place = f"{name}/{seed}"
            measured = _measure_in_child(name, seed, sides)
            before = results.get(place, {})
            measured["sides"] = {**before.get("sides", {}), **measured["sides"]}
            results[place] = {**before, **measured}
            for side, own in measured["sides"].items():
                print(place, side, own["delays"], own["false"], own.get("nab", ""), flush=True)
            if results_file is not None:
                results_file.write_text(json.dumps(results, indent=1))
    return results


def _names(text: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    return names


def main() -> None:
    """Print the tables; as a child, print the figures of one stream as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=lambda text: _names(text, list(STREAMS)), default=list(STREAMS))
    known = [*DEFAULT_SIDES, AT_A_RATE]
    parser.add_argument("--sides", type=lambda text: _names(text, known), default=list(DEFAULT_SIDES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--stored", action="store_true")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.streams[0], options.seeds, options.sides)))
        return
    stored = options.stored
    results = (
        _stored(options.results) if stored else compare(options.streams, options.sides, options.seeds, options.results)
    )
    text = tables(results)
    print(f"\n{text}")
    if options.markdown is not None:
        options.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
