"""Options of the exports."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from learnd.section import Count, Positive, Section

Format = Literal["saved_model", "tflite"]


class ExportSettings(Section):
    """When and what to publish under ``data_dir/exports/<number>/``."""

    every_seconds: Positive | None = 300.0
    every_samples: Count | None = None
    formats: Annotated[list[Format], Field(min_length=1)] = ["saved_model", "tflite"]
    keep: Count = 5
    tolerance: Positive = 1e-4
    """Largest difference to the live averaged model, relative to the spread of its outputs."""
    signing_key_file: Path | None = None
    """A private Ed25519 key, PEM without a password; every export's manifest is signed with it."""
