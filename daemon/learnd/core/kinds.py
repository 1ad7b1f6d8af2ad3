"""Names that settings and components share. Quick to import: no NumPy."""

from typing import Literal

EvaluatedOn = Literal["targets", "inputs", "classes"]
"""Reference for a prediction's error: the targets, the inputs, or the class number."""
