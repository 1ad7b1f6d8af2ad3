"""Names that settings and components share. Light to import: no NumPy."""

from typing import Literal

EvaluatedOn = Literal["targets", "inputs", "classes"]
"""What a prediction is compared with: the targets, the inputs, or the number of a class."""
