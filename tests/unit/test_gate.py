"""What the gate of exports lets pass, and what it refuses."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from learnd.core.quality import Errors, Figures, Quality
from learnd.core.settings_base import kinds_of
from learnd.core.snapshot import Published, Snapshot
from learnd.core.types import PrequentialScores
from learnd.export.gate import Refusal, judge, note_refusal, read_refusals
from learnd.export.settings import ExportSettings, GateSettings
from learnd.tasks.settings import AnyTask

GATE = GateSettings(naive=True)


def _snapshot(
    *, published: Published | None = None, averaged: float = 0.5, naive: float = 1.0, samples: int = 1000
) -> Snapshot:
    figures = Figures(samples, Errors(averaged, averaged, naive, naive, samples))
    signal = PrequentialScores(samples, 0.5, 0.5, 1.0, 0.5)
    quality = Quality(figures, figures)
    return Snapshot((), None, samples, samples, {}, 0.0, 0.0, signal, published=published, quality=quality)  # type: ignore[arg-type]


def _published(loss: float, averaged: float, samples: int = 200) -> Published:
    return Published(7, loss, samples, recent_loss=loss, averaged_loss=averaged, recent_samples=samples)


@pytest.mark.parametrize(
    ("loss", "averaged", "samples", "refused"),
    [
        (1.0, 1.06, 200, True),
        (1.0, 1.04, 200, False),
        (1.0, 0.5, 200, False),
        (1.0, 9.0, 199, False),
        (1e-9, 1e-7, 500, False),
        (1e-9, 0.1, 500, True),
        (math.nan, 1.0, 500, False),
    ],
)
def test_a_challenger_is_compared_with_the_newest_export(
    loss: float, averaged: float, samples: int, refused: bool
) -> None:
    """On the same samples, by the margin, and only with enough of them; rounding never decides."""
    refusal = judge(GATE, _snapshot(published=_published(loss, averaged, samples)))
    assert (refusal is not None) == refused
    if refusal is not None:
        assert (refusal.reason, refusal.error, refusal.reference) == ("published", averaged, loss)


@pytest.mark.parametrize(
    ("averaged", "samples", "refused"), [(1.06, 1000, True), (1.04, 1000, False), (9.0, 999, False)]
)
def test_a_challenger_is_compared_with_the_naive_forecast(averaged: float, samples: int, refused: bool) -> None:
    """Also when it is better than the newest export."""
    published = _published(1.0, 0.5)
    refusal = judge(GATE, _snapshot(published=published, averaged=averaged, samples=samples))
    assert (refusal is not None) == refused
    if refusal is not None:
        assert (refusal.reason, refusal.samples) == ("naive", samples)
        assert "gate: {naive: false}" in refusal.fields()["note"]
    assert judge(GateSettings(naive=False), _snapshot(averaged=averaged, samples=samples)) is None


def test_the_margin_is_the_users_and_a_gate_that_is_off_lets_everything_pass() -> None:
    """`off` is a boolean in YAML, and text in JSON; on is the default."""
    bad = _snapshot(averaged=1.5, published=_published(1.0, 1.5))
    assert judge(ExportSettings(gate={"margin": 0.6}).with_naive_gate(True).gate_settings, bad) is None  # type: ignore[arg-type]
    for off in (False, "off"):
        assert judge(ExportSettings(gate=off).with_naive_gate(True).gate_settings, bad) is None  # type: ignore[arg-type]
    for on in (True, {}):
        assert judge(ExportSettings(gate=on).with_naive_gate(True).gate_settings, bad) is not None  # type: ignore[arg-type]
    assert judge(ExportSettings().with_naive_gate(True).gate_settings, bad) is not None


def test_refusals_are_counted_next_to_the_exports(tmp_path: Path) -> None:
    """The count outlives a restart; a damaged file begins again."""
    assert read_refusals(tmp_path) is None
    refusal = Refusal("naive", 2.0, 1.0, 0.05, 1200)
    note_refusal(tmp_path, refusal, "2026-11-27T00:00:00+00:00")
    note_refusal(tmp_path, replace(refusal, samples=1300), "2026-11-27T00:05:00+00:00")
    document = read_refusals(tmp_path)
    assert document is not None
    assert (document["count"], document["last"]["samples"], document["last"]["reference"]) == (2, 1300, 1.0)
    (tmp_path / ".refused.json").write_text("{")
    assert read_refusals(tmp_path) is None


@pytest.mark.parametrize(
    ("task", "compared"),
    [("regression", False), ("classification", False), ("forecast", True), ("reconstruction", True)],
)
def test_the_naive_gate_is_on_where_a_user_could_make_that_forecast(task: str, compared: bool) -> None:
    default = kinds_of(AnyTask)[task].naive_in_exports  # type: ignore[attr-defined]
    gate = ExportSettings().with_naive_gate(default).gate_settings
    assert gate is not None and gate.naive is compared
    chosen = ExportSettings(gate=GateSettings(naive=not compared)).with_naive_gate(default).gate_settings
    assert chosen is not None and chosen.naive is not compared
