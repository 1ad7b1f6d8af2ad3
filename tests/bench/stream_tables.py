"""The tables of the streams: figures of all sides, and those of exports that stand still."""

from typing import Any

from tests.bench.sides import markdown  # isort: skip - sets the log level

import numpy as np

FROZEN, FROZEN_NAIVE = "export", "export: naive"
"""The sides that predict the end of a stream: an export that stands still, and the simple rule on the same rows."""
TITLES = {
    "naive": "naive",
    "linear": "River: linear",
    "tree": "River: tree",
    "forest": "River: forest",
    "deep-river": "deep-river",
    "single": "learnd, one learner",
}
"""The sides besides learnd's default, in the order of the columns."""
Figures = dict[str, list[float]]
"""The figures of each side, one per seed."""
Measured = dict[str, Any]
"""A stream's line in the file of results: its figures, and what the tables say of it."""


def _mean(figures: list[float] | None) -> object:
    return "" if not figures else float(np.mean(figures))


def ratio_to_best(measured: Measured) -> object:
    """Return learnd's error over that of the best other side; of accuracies, the shares that are wrong."""
    figures: Figures = measured["figures"]
    means = [float(np.mean(own)) for side, own in figures.items() if side in TITLES and side != "single"]
    others = [mean for mean in means if np.isfinite(mean)]  # an overflow is no rival
    if not others or "learnd" not in figures:
        return ""
    ours = float(np.mean(figures["learnd"]))
    if measured["smaller_is_better"]:
        return round(ours / max(min(others), 1e-9), 4)
    return round((1.0 - ours) / max(1.0 - max(others), 1e-9), 4)


def tables(results: dict[str, Measured]) -> str:
    """Return the table of predictions and that of standing exports as Markdown."""
    sides = [side for side in TITLES if any(side in measured["figures"] for measured in results.values())]
    rows, standing = [], []
    for name, measured in results.items():
        figures, floor = measured["figures"], measured["floor"]
        own = figures.get("learnd", [])
        seeds = f"{min(own):.4g} to {max(own):.4g}" if own else ""
        held = "chosen on" if measured["chosen_on"] else "looked at afterwards"
        best_possible = "" if floor is None else floor if measured["smaller_is_better"] else 1.0 - floor
        others = [_mean(figures.get(side)) for side in sides]
        rows.append([name, measured["what"], best_possible, *others, _mean(own), seeds, ratio_to_best(measured), held])
        if FROZEN in figures:
            export, rule = _mean(figures[FROZEN]), _mean(figures[FROZEN_NAIVE])
            standing.append([name, rule, export, export / max(rule, 1e-9)])  # type: ignore[operator, type-var]
    titles = [TITLES[side] for side in sides]
    columns = ["stream", "figure", "best possible", *titles, "learnd", "seeds", "error over the best other", "was"]
    parts = [markdown(columns, rows)]
    if standing:
        parts += [markdown(["stream", "naive", "export", "export over naive"], standing)]
    return "\n\n".join(parts)
