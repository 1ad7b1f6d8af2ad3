"""The gate of exports: a challenger that is worse than the champion, or than a naive forecast, is not published."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from learnd.core.quality import is_worse
from learnd.core.snapshot import Snapshot
from learnd.export.settings import GateSettings

LEAST_PUBLISHED_SAMPLES = 200
"""Number of samples after the newest export before a challenger is compared with it."""
LEAST_SAMPLES = 1000
"""Number of evaluated samples before a challenger is compared with the naive forecast."""
_SMALLEST_SHARE = 0.01
"""A champion's loss counts as at least this share of the mean loss since the model began. Otherwise rounding would
decide while a machine stands still."""
FILE_NAME = ".refused.json"
"""The file next to the exports that counts refusals and describes the last one, for ``learnd inspect``."""

RefusalReason = Literal["published", "naive"]
REFUSAL_REASONS: tuple[RefusalReason, ...] = ("published", "naive")
_WAYS_OUT: Mapping[RefusalReason, str] = {
    "published": "worse than the newest export, which stays; a larger export.gate.margin allows it, gate: off always "
    "publishes",
    "naive": "worse than a naive forecast; see the model's skill; gate: {naive: false} allows it, gate: off always "
    "publishes",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a challenger is not published.

    Attributes
    ----------
    reason : it is worse than the published export, or than the naive forecast
    error : of the challenger: its loss, or its error in the units of the naive one
    reference : of the published export or of the naive forecast, on the same samples
    margin : the share by which the error may exceed the reference
    samples : samples that the challenger has learned
    """

    reason: RefusalReason
    error: float
    reference: float
    margin: float
    samples: int

    def fields(self) -> dict[str, Any]:
        """Return the refusal as values for a log event, with the way out."""
        rounded = {"error": round(self.error, 6), "reference": round(self.reference, 6)}
        return {**asdict(self), **rounded, "note": _WAYS_OUT[self.reason]}


def judge(settings: GateSettings | None, challenger: Snapshot) -> Refusal | None:
    """Return why *challenger* must not be published; None if it may be, or if too few samples were evaluated.

    The newest export is compared by its loss on samples that arrived after it, with the averaged weights' loss on the
    same samples. Both predicted each sample before they had learned it.
    """
    if settings is None:
        return None
    published, margin = challenger.published, settings.margin
    if published is not None and published.recent_samples >= LEAST_PUBLISHED_SAMPLES:
        usual = challenger.signal.mean_loss
        least = _SMALLEST_SHARE * usual if math.isfinite(usual) else 0.0
        reference = max(published.recent_loss, least)
        if reference > 0.0 and is_worse(published.averaged_loss, reference, margin=margin):
            return Refusal("published", published.averaged_loss, published.recent_loss, margin, challenger.samples)
    errors = challenger.quality.recent.errors
    enough = challenger.quality.total.errors.samples >= LEAST_SAMPLES
    if settings.naive and enough and errors.worse_than_naive(errors.averaged, margin=margin):
        return Refusal("naive", errors.averaged, errors.naive, margin, challenger.samples)
    return None


def note_refusal(directory: Path, refusal: Refusal, at: str) -> None:
    """Count *refusal*, made at the time *at*, in the file of refusals in *directory*."""
    count = int((read_refusals(directory) or {}).get("count", 0)) + 1
    path = directory / FILE_NAME
    temporary = path.with_name(f"{FILE_NAME}.new")
    temporary.write_text(json.dumps({"count": count, "last": {"at": at, **refusal.fields()}}), encoding="utf-8")
    temporary.replace(path)


def read_refusals(directory: Path) -> dict[str, Any] | None:
    """Return the number of refusals and the last one; None if there was none, or if the file cannot be read."""
    try:
        document = json.loads((directory / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
