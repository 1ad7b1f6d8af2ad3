"""Runs sides in turn, A B A B, and compares their medians."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def interleave(sides: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """Each side's figures, one a round; a side returns its own figure (a time or a rate)."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            figures[name].append(side())
    return figures


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock seconds that *action* takes."""
    started_s = time.perf_counter()
    action()
    return time.perf_counter() - started_s


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in [list(columns), *cells]]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n\n{markdown(columns, rows)}")


def median(figures: Sequence[float]) -> float:
    """The median."""
    return statistics.median(figures)


def spread(figures: Sequence[float]) -> str:
    """Smallest and largest."""
    return f"{min(figures):.4g} to {max(figures):.4g}"
