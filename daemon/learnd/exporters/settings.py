"""Options of the exports."""

from typing import Annotated, Literal

from pydantic import Field

from learnd.section import Count, Positive, Section

Format = Literal[
    "saved_model",
    "tflite",
    "tflite_float16",
    "tflite_dynamic",
    "tflite_int8",
    "tflite_training",
    "keras",
    "hdf5",
    "onnx",
]


class ExportSettings(Section):
    """When and what to publish under ``data_dir/exports/<number>/``."""

    every_seconds: Positive | None = 300.0
    every_samples: Count | None = None
    formats: Annotated[list[Format], Field(min_length=1)] = ["saved_model", "tflite"]
    keep: Count = 5
    tolerance: Positive = 1e-4
    """Largest difference to the live averaged model, relative to the spread of its outputs."""
    tolerances: dict[Format, Positive] = {}
    """The same for single formats. By default, of the root mean square over the rows: 0.01 for tflite_float16, 0.05 for
    tflite_dynamic, 0.2 for tflite_int8."""
