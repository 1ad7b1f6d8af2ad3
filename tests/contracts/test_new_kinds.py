"""A new kind touches its own file, its settings and one registry line; these tests add kinds and change nothing else.

They keep the table in `.github/CONTRIBUTING.md` true: if a kind had to be known elsewhere, they would fail.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from learnd.config.cross_checks import contradictions
from learnd.config.settings import Settings
from learnd.core.kinds import EvaluatedOn
from learnd.core.layout import TextLayout
from learnd.core.protocols import Source
from learnd.core.registry import Registration
from learnd.core.settings_base import Count
from learnd.runtime.loop import Pipeline, run
from learnd.sources import SOURCES
from learnd.sources.memory import MemorySource
from learnd.sources.settings import SourceContext, SourceSettings
from learnd.tasks import TASKS
from learnd.tasks.regression import RegressionNetwork
from learnd.tasks.settings import AnyTask, TaskSettings
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import readings, settings

# A kind outside the union of the settings is the point of these tests.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


class SumSettings(TaskSettings):
    """The sum of several targets: a task that learnd does not have."""

    kind: Literal["sum"]
    terms: Count = 2
    """Targets that are added."""

    evaluated_on: ClassVar[EvaluatedOn] = "targets"

    def target_problems(self, targets: Sequence[str]) -> Any:
        if len(targets) != self.terms:
            yield f"must name {self.terms} fields, not {len(targets)}"

    def output_names(self, features: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"share of {name}" for name in targets)


class SumNetwork(RegressionNetwork):
    """Predicts the terms; the name of the registry is all that leads here."""


class TickSettings(SourceSettings):
    """A source that learnd does not have."""

    kind: Literal["tick"]
    ticks: Count = 50

    @property
    def has_present_end(self) -> bool:
        return True


class TickSource(MemorySource):
    """Plays made-up readings."""

    @classmethod
    def from_settings(cls, options: TickSettings, context: SourceContext) -> Source:
        assert context.name == "test"
        return cls(readings(options.ticks))

    @staticmethod
    def layout(options: TickSettings) -> TextLayout:
        return TextLayout()


def _run(chosen: Settings, **options: Any) -> Pipeline:
    assert list(contradictions(chosen)) == []
    pipeline = make_pipeline(chosen, **options)
    run(pipeline, stopping=lambda: False)
    return pipeline


def test_a_new_task_kind_needs_its_settings_its_network_and_one_registry_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked, wired, learned, saved, evaluated, fingerprinted and named in predictions."""
    monkeypatch.setitem(TASKS, "sum", Registration(SumSettings, f"{__name__}:SumNetwork"))
    plain = settings(
        tmp_path / "data",
        features=["a", "b"],
        target=["c", "y"],
        learning={"mode": "per_sample", "compile": False},
        predictions={"path": str(tmp_path / "predictions.jsonl")},
    )
    chosen = plain.model_copy(update={"task": SumSettings(kind="sum")})
    pipeline = _run(chosen, source=MemorySource(readings(30)))
    assert pipeline.progress.samples == pipeline.status.scores.samples == 30
    line = json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[-1])
    assert set(line["prediction"]) == {"share of c", "share of y"}
    wrong = chosen.model_copy(update={"task": SumSettings(kind="sum", terms=3)})
    assert (("target",), "must name 3 fields, not 2") in list(contradictions(wrong))
    assert wrong.fingerprint()["task"] == {"kind": "sum", "terms": 3}


def test_a_new_source_needs_its_settings_its_class_and_one_registry_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked, wired, read to its end, and its positions are in the checkpoint."""
    monkeypatch.setitem(SOURCES, "tick", Registration(TickSettings, f"{__name__}:TickSource"))
    plain = settings(tmp_path, learning={"mode": "per_sample", "compile": False})
    chosen = plain.model_copy(update={"source": TickSettings(kind="tick", ticks=40)})
    assert _run(chosen).progress.records == 40
    assert _run(chosen).progress.records == 40, "the second start has nothing left to read"


def _kinds(union: Any) -> list[type[TaskSettings]]:
    return list(union.__args__[0].__args__)


@pytest.mark.parametrize("task", _kinds(AnyTask), ids=lambda task: task.__name__)
def test_every_option_of_a_task_is_in_the_fingerprint_or_named_as_stateless(task: type[TaskSettings]) -> None:
    """A new option that arrays depend on cannot be left out by forgetting it."""
    changed: dict[str, Any] = {
        "window": 7,
        "horizon": 5,
        "classes": ["p", "q"],
        "max_classes": 9,
        "outputs": "logits",
        "max_gap_s": 3.5,
        "duplicates": "keep",
        "max_keys": 11,
        "known": ["p"],
        "other_class": "rest",
    }
    (kind,) = task.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]
    for name in task.model_fields.keys() - {"kind"}:
        assert name in changed, f"give {task.__name__}.{name} a value here that is not its default"
        options = task(kind=kind, **{name: changed[name]})
        assert (name in options.fingerprint()) is (name not in task.stateless), name


def test_the_shape_of_a_task_follows_from_its_settings() -> None:
    """Rows, targets, outputs and names agree, for every kind."""
    for task in _kinds(AnyTask):
        (kind,) = task.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]
        options = task(kind=kind, window=4)
        assert options.row_shape(3) == (4, 3)
        outputs = options.output_count(3, 1)
        if not options.has_classes:
            names = options.output_names(
                ["a", "b", "c"], ["y"] if options.evaluated_on in ("targets", "labels") else []
            )
            assert outputs % max(1, len(names)) == 0
        assert np.prod(options.row_shape(3)) == 12
