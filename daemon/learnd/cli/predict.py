"""``learnd predict``: runs an export on records, with the runtime that fits its format."""

import argparse
import contextlib
import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from learnd.cli.native_logs import silence_native_logs
from learnd.config.settings import FeatureSettings
from learnd.core.registry import load_object
from learnd.core.types import Float32Array, NamedArrays, Position, Records, TopicPartition
from learnd.decoders.fields import fields_from
from learnd.decoders.json import JsonDecoder
from learnd.decoders.settings import JsonSettings, TimeUnit
from learnd.export.reading import load_reader, read_manifest

BAD_INPUT = 65
_BLOCK_BYTES = 1 << 16


def execute(options: argparse.Namespace) -> int:
    """Answer the records on standard input; return the exit code."""
    with silence_native_logs():
        if options.code is not None:
            load_object(options.code, "--code")
        predictor = Predictor(options.export, options.format, key=options.key)
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        predictor.run(sys.stdin.buffer, sys.stdout, sys.stderr)
    return BAD_INPUT if predictor.rejected else 0


class Predictor:
    """A loaded export that answers records.

    Parameters
    ----------
    folder : the export's folder
    format : one of its formats; None: the first that can be run
    key : the field with the name of the machine, for a model that takes the last readings of one machine

    Raises
    ------
    UsageError
        if *folder* is not an export, if it has no such format, or if the format needs code that was not imported.
    ExportDamagedError
        if the format's file is missing or cannot be loaded.
    """

    def __init__(self, folder: Path, format: str | None, *, key: str | None) -> None:
        self._manifest = read_manifest(folder)
        _, self._answer = load_reader(folder, self._manifest["formats"], format)
        # max_ahead_s=None: event times are not used here, and a record may be of any day.
        json_settings = JsonSettings(
            kind="json", key=key, max_ahead_s=None, time_unit=_time_unit(self._manifest), time_numbers="any"
        )
        fields = fields_from(_features(self._manifest), [], json_settings)
        self._decoder = JsonDecoder(fields)
        decoded = [*(field.name for field in fields.features), *(season.name for season in fields.seasons)]
        self._order = [decoded.index(entry["name"]) for entry in self._manifest["features"]]
        self._keyed = key is not None
        self._windows: dict[str, deque[Float32Array]] = {}
        self._lines = 0
        self.rejected = 0
        """Number of lines that were not usable records."""

    def run(self, lines: BinaryIO, out: TextIO, errors: TextIO) -> None:
        """Answer every line of *lines*, in order, as soon as it arrives.

        A rejected line is reported to *errors* and gets no answer; empty lines are skipped. A model with windows
        gives no answer until a key has a full window of readings.
        """
        for block in _blocks(lines):
            for answer in self._answers(block, errors):
                out.write(json.dumps(answer) + "\n")
            out.flush()

    def _answers(self, lines: Sequence[bytes], errors: TextIO) -> Iterator[dict[str, Any]]:
        first = self._lines + 1
        self._lines += len(lines)
        numbers = [number for number, line in enumerate(lines, first) if line.strip()]
        values = [lines[number - first] for number in numbers]
        no_keys, no_times = [None] * len(values), [0] * len(values)
        records = Records(TopicPartition("", 0), numbers, values, no_keys, no_times, Position(self._lines + 1))
        samples, rejects = self._decoder.decode(records)
        for reject in rejects:
            errors.write(f"line {reject.offset}: {reject.reason}: {reject.detail}\n")
        self.rejected += len(rejects)
        rows = [
            (number, key, row)
            for number, key, reading in zip(
                samples.offsets.tolist(),
                samples.keys.tolist(),
                samples.x[:, self._order].astype(np.float32),
                strict=True,
            )
            if (row := self._row(key, reading)) is not None
        ]
        if not rows:
            return
        answers = self._answer(np.stack([row for _, _, row in rows]))
        for i, (number, key, _) in enumerate(rows):
            head = {"line": number, **({"key": key} if self._keyed else {})}
            yield {**head, **self._with_names({name: values[i] for name, values in answers.items()})}

    def _row(self, key: str, reading: Float32Array) -> Float32Array | None:
        """Return the model's input: the reading, or the window of *key*; None while the window is not full."""
        window = self._manifest["window"]
        if window is None:
            return reading
        readings = self._windows.setdefault(key, deque(maxlen=window))
        readings.append(reading)
        return np.stack(readings) if len(readings) == window else None

    def _with_names(self, answer: NamedArrays) -> dict[str, Any]:
        """Return an answer with the names of its classes or outputs; of a window, only the newest reading."""
        if "probabilities" in answer:
            probabilities = answer["probabilities"].tolist()
            labels = self._manifest["classes"] or [str(i) for i in range(len(probabilities))]
            by_label = dict(zip(labels, probabilities, strict=False))
            return {"class": max(by_label, key=lambda label: by_label[label]), "probabilities": by_label}
        names = self._manifest["predicts"]

        def by_name(value: Float32Array) -> float | dict[str, float]:
            if np.ndim(value) == 0:
                return float(value)
            return dict(zip(names, np.ravel(value)[-len(names) :].tolist(), strict=True))

        named = {name: by_name(value) for name, value in answer.items()}
        if intervals := self._manifest.get("intervals"):
            for end in ("lower", "upper"):
                named[end] = by_name(np.ravel(answer["prediction"]) + np.array(intervals[end]))
        return named


def _features(manifest: Mapping[str, Any]) -> dict[str, FeatureSettings]:
    """Return the fields to read, by the name of the input.

    A seasonal input whose time is that of a Kafka record is read as a number: the seconds since its period began.
    """
    features = {}
    for entry in manifest["features"]:
        season = entry.get("season") or {}
        if season.get("time") is not None:
            features[entry["name"]] = FeatureSettings(season=season["period_s"], time=season["time"])
        else:
            features[entry["name"]] = FeatureSettings(missing=entry.get("missing"))
    return features


def _time_unit(manifest: Mapping[str, Any]) -> TimeUnit:
    """Return the unit of numeric times, which is the same for all seasonal inputs."""
    units = [entry["season"]["time_unit"] for entry in manifest["features"] if entry.get("season")]
    return next((unit for unit in units if unit is not None), "s")


def _blocks(lines: BinaryIO) -> Iterator[list[bytes]]:
    """Yield complete lines as soon as they arrive, so that a pipe is answered at once and a file in large blocks."""
    rest = b""
    # `read1` returns what a pipe has; `read` would wait until the block is full.
    read = getattr(lines, "read1", lines.read)
    while block := read(_BLOCK_BYTES):
        *complete, rest = (rest + block).split(b"\n")
        yield complete
    if rest:
        yield [rest]
