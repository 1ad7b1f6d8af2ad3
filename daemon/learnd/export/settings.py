"""Options of the exports."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Secret, field_validator

from learnd.core.settings_base import Count, Positive, Section

_ONNX_MODULES = ("tf2onnx", "onnxruntime")
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


class UploadSettings(Section):
    """Object storage, or another folder, that gets a copy of the newest export."""

    url: str
    """`s3://bucket/path`, `gs://...`, `az://...`, `file:///...`, or any other that fsspec knows."""
    options: dict[str, Secret[str | int | float | bool]] = {}
    """Arguments of fsspec's file system; any of them may be a secret. Absent: what the environment says."""

    @field_validator("url")
    @classmethod
    def _place_without_secret(cls, url: str) -> str:
        # What was written is not repeated: it may hold a password.
        parts = urlsplit(url)
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", url):
            raise ValueError("is no URL with a path, such as s3://bucket/exports")
        if parts.username or parts.password or parts.query:
            raise ValueError("holds a name, a password or a query; put them into options, or into the environment")
        return url


class ExportSettings(Section):
    """When and what to publish under ``data_dir/exports/<number>/``."""

    every_seconds: Positive | None = 300.0
    """Whichever of the two comes first; null: that one never."""
    every_samples: Count | None = None
    """Learned samples from one export to the next."""
    formats: list[Format] = ["saved_model", "tflite"]
    """`[]`: nothing is ever published. `saved_model`, `tflite`, `tflite_float16`, `tflite_dynamic`, `tflite_int8`,
    `tflite_training`, `keras`, `hdf5` (weights alone), and `onnx` (pip install 'learnd[onnx]')."""
    keep: Count = 5
    """The newest so many; besides, whatever was the newest within the last 60 s, or is named by `latest`."""
    tolerance: Positive = 1e-4
    """Largest difference to the live averaged model, relative to the spread of its outputs."""
    tolerances: dict[Format, Positive] = {}
    """The same for single formats. By default, of the root mean square over the rows: 0.01 for tflite_float16, 0.05 for
    tflite_dynamic, 0.2 for tflite_int8."""
    signing_key_file: Path | None = None
    """A private Ed25519 key, PEM without a password; every export's manifest is signed with it."""
    upload: UploadSettings | None = None
    """Copies every export elsewhere once it is published here."""

    @field_validator("formats")
    @classmethod
    def _installed(cls, formats: list[Format]) -> list[Format]:
        missing = [name for name in _ONNX_MODULES if find_spec(name) is None]
        if "onnx" in formats and missing:
            raise ValueError(f"onnx needs {' and '.join(missing)}: pip install 'learnd[onnx]'")
        if len(set(formats)) < len(formats):
            raise ValueError("a format stands twice")
        return formats
