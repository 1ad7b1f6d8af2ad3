"""Names that settings and components share. Quick to import: no NumPy."""

from typing import Literal

EvaluatedOn = Literal["targets", "inputs", "classes", "labels"]
"""Reference for a prediction's error: the targets, the inputs, the class number, or independent labels."""
NaiveKind = Literal["last_truth", "last_reading", "class_table", "running_mean"]
"""A forecast that needs no model, which a model must beat."""
Watched = Literal["inputs", "targets", "both"]
"""The readings whose anomalies raise alarms: the newest of the inputs, the newest targets, or both."""
NAIVE_FORECASTS: dict[NaiveKind, str] = {
    "last_truth": "the last known target of the same key",
    "last_reading": "the last reading, repeated for every step ahead",
    "class_table": "the class that most often followed the key's last class, or the most frequent class",
    "running_mean": "the running mean of each value; for labels, their running share",
}
"""Each naive forecast in words."""
