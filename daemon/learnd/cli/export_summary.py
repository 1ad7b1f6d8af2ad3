"""The summary of the newest export in the last line of the log: its path, and how good it is."""

import math
from collections.abc import Mapping
from typing import Any

from learnd.core.quality import Errors
from learnd.core.snapshot import Published
from learnd.runtime.loop import Pipeline
from learnd.runtime.quality_watch import LEAST_PUBLISHED_SAMPLES

_UNKNOWN = f"unknown yet: that takes {LEAST_PUBLISHED_SAMPLES} samples with a target"


def export_summary(pipeline: Pipeline, *, truths_known: bool) -> dict[str, Any]:
    """Return the path of this model's newest export, and whether it predicts better than no model at all.

    Parameters
    ----------
    truths_known : True if a user of an export knows the last truths, so that a naive forecast could replace it
    """
    publishing, watch = pipeline.publishing, pipeline.quality
    if not publishing.newest:
        note = "export.formats is empty" if not publishing.exporter.enabled else "no export of this model succeeded yet"
        return {"export_path": None, "export_good": None, "export_note": note}
    total, recent = watch.quality.total.errors.samples, watch.quality.recent
    explained = averaged_r2(recent.measures)
    if truths_known or explained is None:
        good, note = export_verdict(publishing.newest, watch.published, recent.errors, total)
    else:
        good, note = explained_verdict(explained, total)
    if publishing.refused is not None:
        note += f"; the present weights were refused, because they are worse than {publishing.refused.reason}"
    path = str(publishing.exporter.path(publishing.newest))
    return {"export_path": path, "export_good": good, "export_note": note}


def averaged_r2(measures: Mapping[str, float]) -> float | None:
    """Return the share of the targets' variance that the averaged weights explain; None without numbers as targets.

    >>> averaged_r2({"r2": 0.75, "rmse": 1.0, "averaged_rmse": 1.0})
    0.75
    """
    try:
        r2, rmse, averaged_rmse = measures["r2"], measures["rmse"], measures["averaged_rmse"]
    except KeyError:
        return None
    variance = rmse**2 / (1.0 - r2) if r2 < 1.0 else math.nan
    return 1.0 - averaged_rmse**2 / variance if variance else math.nan


def explained_verdict(explained: float, samples: int) -> tuple[bool | None, str]:
    """Return whether the averaged weights are better than always giving the mean, and why; None while unknown.

    >>> explained_verdict(0.985, 1000)
    (True, 'explains 98.5 % of the variance of the last 1000 samples; always giving the mean explains 0 %')
    """
    if samples < LEAST_PUBLISHED_SAMPLES or math.isnan(explained):
        return None, _UNKNOWN
    percent = round(100.0 * explained, 1)
    note = f"explains {percent} % of the variance of the last 1000 samples; always giving the mean explains 0 %"
    return explained > 0.0, note


def export_verdict(number: int, published: Published | None, recent: Errors, samples: int) -> tuple[bool | None, str]:
    """Return whether export *number* is better than a naive forecast, and why; None while too few samples say so.

    What counts are samples after the export. An export that was made just now is rated by its averaged weights.

    Parameters
    ----------
    published : the errors of an export on samples after it
    recent, samples : the errors of the present weights, and the number of samples of the model's life
    """
    skill, counted, of = recent.averaged_skill, samples, "by the averaged weights, on the last 1000 samples"
    if published is not None and published.number == number and published.recent_samples >= LEAST_PUBLISHED_SAMPLES:
        skill, counted, of = published.skill, published.recent_samples, "on the samples after it"
    if counted < LEAST_PUBLISHED_SAMPLES or math.isnan(skill):
        return None, _UNKNOWN
    than = "better" if skill > 0.0 else "no better"
    return skill > 0.0, f"{than} than a naive forecast, {of}: skill {skill:.3f}"
