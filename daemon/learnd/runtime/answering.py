"""The version of the model that made each answer of a result."""

from dataclasses import replace

import numpy as np

from learnd.core.types import StepResult


def with_versions(result: StepResult, *, learned_before: int, batch_rows: int) -> StepResult:
    """Return *result* with the number of samples that each prediction's weights had learned.

    Parameters
    ----------
    learned_before : samples that the model had learned before the result
    batch_rows : rows per update; those of one update share the weights from before it
    """
    before = learned_before + np.cumsum(result.learned, dtype=np.int64) - result.learned
    return replace(result, versions=before - before % batch_rows)
