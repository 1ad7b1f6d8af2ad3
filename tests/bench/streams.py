"""Comparison of the default configuration with simple rules and other online learners.

Every side predicts each row before it learns it. learnd has nothing set but features and target; the others have their
own defaults. Those that draw random numbers run once per seed. `python -m tests.bench.streams` runs it all; with

    --streams NAMES   these streams only, between commas
    --sides NAMES     these sides only: naive, linear, tree, forest (River's), learnd; and two that run only if they are
                      named: deep-river, and single (learnd with ``mode: per_sample``)
    --seeds N         seeds per side (3)
    --results FILE    figures as JSON: those that are not measured now are taken from it, and it is updated
    --stored          measure nothing; the tables come from ``--results``
    --markdown FILE   write the tables to this file too
    --fast            the same as ``--sides naive,learnd --seeds 1``
    --cost            the time of an update instead, against a single learner

Needs the extra `bench`. deep-river 0.3.4 needs River 0.25, which lacks the stream sp500, and brings 5 GB of PyTorch. So
it is in no extra, and runs in an environment of its own: ``pip install deep-river`` there, and ``--sides deep-river``
with the same file of results. Each stream has a child process, because compiled updates stay in memory.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.sides import markdown  # isort: skip - sets the log level

import numpy as np

from learnd.config.loader import from_values
from learnd.wiring.learner import configure_tensorflow
from tests.bench.learnd_side import cost, frozen_rows, learnd
from tests.bench.made_streams import Rows, Stream, naive
from tests.bench.rivals import RIVER, deep_river, river
from tests.bench.stream_data import STREAMS
from tests.bench.stream_tables import FROZEN, FROZEN_NAIVE, TITLES, Figures, Measured, tables

DEFAULT_SIDES = ("naive", *RIVER, "learnd")
COST_STREAMS = ("abrupt drift", "bananas", "image-segments")


def _side(name: str, stream: Stream, seeds: int) -> Figures:
    """Return the figures of a side, one per seed; a side without random numbers has one."""
    if name == "naive":
        return {name: [stream.figure(naive(stream))]}
    if name in ("learnd", "single"):
        sections = {"learning": {"mode": "per_sample"}} if name == "single" else {}
        runs = [learnd(stream, seed, **sections) for seed in range(seeds)]
        own = {name: [stream.figure(run.predictions) for run in runs]}
        if name == "single":
            return own
        rows = frozen_rows(stream)
        standing = [_frozen_error(stream, run.frozen) for run in runs]
        return {**own, FROZEN: standing, FROZEN_NAIVE: [_frozen_error(stream, naive(stream)[rows])]}
    run: Callable[[Stream, int], Rows] = deep_river if name == "deep-river" else lambda s, seed: river(name, s, seed)
    return {name: [stream.figure(run(stream, seed)) for seed in range(1 if name == "linear" else seeds)]}


def _frozen_error(stream: Stream, predictions: Rows) -> float:
    rows = frozen_rows(stream)
    y = stream.y[rows]
    return float(np.mean(predictions != y if stream.classes else np.abs(predictions - y)))


def measure(name: str, sides: Sequence[str], seeds: int) -> Measured:
    """Return what the table says of a stream, and the figures of *sides*."""
    stream = STREAMS[name]()
    figures: Figures = {}
    for side in sides:
        figures |= _side(side, stream, seeds)
    return {
        "what": stream.what,
        "rows": len(stream.y),
        "floor": stream.floor,
        "smaller_is_better": stream.smaller_is_better,
        "chosen_on": stream.chosen_on,
        "figures": figures,
    }


def _measure_in_child(name: str, sides: Sequence[str], seeds: int) -> Measured:
    """Measure in a process of its own."""
    options = ["--child", "--streams", name, "--sides", ",".join(sides), "--seeds", str(seeds)]
    command = [sys.executable, "-m", "tests.bench.streams", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def _stored(results_file: Path | None) -> dict[str, Measured]:
    if results_file is None or not results_file.exists():
        return {}
    stored: dict[str, Measured] = json.loads(results_file.read_text())
    return stored


def compare(names: Sequence[str], sides: Sequence[str], seeds: int, results_file: Path | None) -> str:
    """Measure *sides* on the streams *names*, and return the tables."""
    results: dict[str, Measured] = {}
    for name in names:
        measured = _measure_in_child(name, sides, seeds)
        stored = _stored(results_file)  # read again: a long run may have a second one next to it, of other streams
        measured["figures"] = {**stored.get(name, {}).get("figures", {}), **measured["figures"]}
        results[name] = measured
        print(name, {side: f"{np.mean(own):.4g}" for side, own in measured["figures"].items()}, flush=True)
        if results_file is not None:
            results_file.write_text(json.dumps({**stored, name: measured}, indent=1))
    return tables(results)


def costs(names: Sequence[str]) -> str:
    """Measure the time of an update, and return its table."""
    columns = ["stream", "one learner, us per sample", "default", "default over one learner"]
    return markdown(columns, [[name, *cost(STREAMS[name]())] for name in names])


def _configure() -> None:
    values = {"source": {"kind": "simulator"}, "features": ["x"], "target": "y", "model": {"kind": "mlp"}}
    configure_tensorflow(from_values(values).learning)


def _names(text: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    return names


def main() -> None:
    """Print the tables; as a child, print the figures of one stream as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=lambda text: _names(text, list(STREAMS)))
    parser.add_argument("--sides", type=lambda text: _names(text, [*TITLES, "learnd"]), default=list(DEFAULT_SIDES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--stored", action="store_true")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fast:
        options.sides, options.seeds = ["naive", "learnd"], 1
    if options.child or options.cost:
        _configure()
    if options.child:
        print(json.dumps(measure(options.streams[0], options.sides, options.seeds)))
        return
    names = options.streams or list(STREAMS)
    if options.cost:
        text = costs(options.streams or COST_STREAMS)
    elif options.stored:
        stored = _stored(options.results)
        text = tables({name: stored[name] for name in names if name in stored})
    else:
        text = compare(names, options.sides, options.seeds, options.results)
    print(f"\n{text}")
    if options.markdown is not None:
        options.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
