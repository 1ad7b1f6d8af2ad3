"""Options of the exports."""

import re
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, Secret, field_validator

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
    """Object storage, or another folder, that receives a copy of the newest export."""

    url: str
    """`s3://bucket/path`, `gs://...`, `az://...`, `file:///...`, or any other URL that fsspec supports."""
    options: dict[str, Secret[str | int | float | bool]] = {}
    """Arguments of fsspec's file system. Any of them may be a secret. By default the file system reads its credentials
    from the environment."""

    @field_validator("url")
    @classmethod
    def _location_without_secret(cls, url: str) -> str:
        # The messages do not repeat the URL, because it may contain a password.
        parts = urlsplit(url)
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", url):
            raise ValueError("is not a URL with a path, such as s3://bucket/exports")
        if parts.username or parts.password or parts.query:
            raise ValueError("contains a name, a password or a query; put them into options, or into the environment")
        return url


class GateSettings(Section):
    """Conditions under which new weights are not published."""

    margin: Annotated[float, Field(ge=0)] = 0.05
    """Share by which the error may exceed that of the newest export, or of the naive forecast."""
    naive: bool | None = None
    """Also compare with the naive forecast, once 1000 samples were evaluated. Absent: for a forecast and a
    reconstruction. The naive forecast of the other tasks is made from the last truth, which is unknown where an export
    runs."""


class ExportSettings(Section):
    """Formats and schedule of what is published under ``data_dir/exports/<number>/``."""

    every_seconds: Positive | None = 300.0
    """Seconds from one export to the next; null: no limit in time. An export starts at whichever limit comes first."""
    every_samples: Count | None = None
    """Learned samples from one export to the next; null: no limit in samples."""
    formats: list[Format] = ["saved_model", "tflite"]
    """`[]`: never publish. `saved_model`, `tflite`, `tflite_float16`, `tflite_dynamic`, `tflite_int8`,
    `tflite_training`, `keras`, `hdf5` (weights only), and `onnx` (pip install 'learnd[onnx]')."""
    gate: GateSettings | Literal["off"] = GateSettings()
    """Do not publish weights that are worse than the newest export on the samples after it (at least 200 of them), or
    worse than a naive forecast. `off`: publish in any case."""
    rehearse: bool = True
    """Build each format once from the fresh model before the first record is read, so that a format that the model
    cannot have is reported at once. Takes seconds, at the first start and after a change. `false` for those who start
    often."""
    keep: Count = 5
    """Number of newest exports to keep. Exports that were the newest within the last 60 s, and the one that `latest`
    names, stay as well."""
    tolerance: Positive = 1e-4
    """Largest allowed difference from the live averaged model, relative to the spread of its outputs."""
    tolerances: dict[Format, Positive] = {}
    """Tolerances for single formats. The formats that round weights are compared by the root mean square over the rows;
    their defaults are 0.01 for tflite_float16, 0.05 for tflite_dynamic and 0.2 for tflite_int8."""
    signing_key_file: Path | None = None
    """A private Ed25519 key in PEM without a password, which signs the manifest of every export."""
    upload: UploadSettings | None = None
    """Store to which every export is copied after it is published here."""

    @field_validator("gate", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        """Return `off` and `on` as text and as the default: YAML reads them as booleans."""
        if isinstance(value, bool):
            return {} if value else "off"
        return value

    @property
    def gate_settings(self) -> GateSettings | None:
        """The gate; None if it is off."""
        return None if self.gate == "off" else self.gate

    def without(self, formats: Collection[str]) -> "ExportSettings":
        """Return these settings without *formats*."""
        return self.model_copy(update={"formats": [name for name in self.formats if name not in formats]})

    def with_naive_gate(self, default: bool) -> "ExportSettings":
        """Return these settings with the naive gate on or off as configured, otherwise as *default*."""
        gate = self.gate_settings
        if gate is None or gate.naive is not None:
            return self
        return self.model_copy(update={"gate": gate.model_copy(update={"naive": default})})

    @field_validator("formats")
    @classmethod
    def _installed(cls, formats: list[Format]) -> list[Format]:
        missing = [name for name in _ONNX_MODULES if find_spec(name) is None]
        if "onnx" in formats and missing:
            raise ValueError(f"onnx needs {' and '.join(missing)}: pip install 'learnd[onnx]'")
        repeated = sorted({name for name in formats if formats.count(name) > 1})
        if repeated:
            raise ValueError(f"lists {', '.join(repeated)} more than once")
        return formats
