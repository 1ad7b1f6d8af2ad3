"""``learnd predict``: what an export says of records, by the runtime that fits its format."""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from learnd.config.settings import FeatureSettings
from learnd.core.errors import ExportDamagedError, FormatUnavailableError, UsageError
from learnd.core.types import Float32Array, Position, Records, TopicPartition
from learnd.decoders.json import JsonDecoder
from learnd.decoders.settings import JsonSettings
from learnd.decoders.validation import fields_from
from learnd.export import manifest
from learnd.export.formats import READERS

_BLOCK_BYTES = 1 << 16


class Predictor:
    """An export, ready to answer.

    Parameters
    ----------
    folder : of the export
    format : one of its formats; None: the first that can be run
    key : the field that names the machine, where the model wants the last readings of one

    Raises
    ------
    UsageError
        if *folder* is no export, or has no such format, or the format needs code that was not imported.
    ExportDamagedError
        if the format's file is not there, or cannot be loaded.
    """

    def __init__(self, folder: Path, format: str | None, *, key: str | None) -> None:
        self._manifest = _manifest(folder)
        formats = self._manifest["formats"]
        runnable = [name for name in formats if name in READERS]
        chosen = format if format is not None else next(iter(runnable), "")
        if chosen not in runnable:
            raise UsageError(f"{folder} has no format {chosen!r} to run; there are {', '.join(runnable) or 'none'}")
        module, _, name = READERS[chosen].partition(":")
        reader = getattr(import_module(module), name)
        try:
            self._answer = reader(folder / formats[chosen]["path"])
        except FormatUnavailableError as error:
            raise UsageError(f"{folder}: {chosen} cannot be loaded: {error} (--code names it)") from error
        except Exception as error:  # each runtime has its own for a file that is not there or not whole
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ExportDamagedError(
                f"{folder}: {chosen} cannot be loaded: {said}; learnd inspect {folder} --verify tells what is damaged"
            ) from error
        features = {
            entry["name"]: FeatureSettings(missing=entry.get("missing")) for entry in self._manifest["features"]
        }
        # Times are of no use here, and a record may be of any day.
        self._decoder = JsonDecoder(fields_from(features, [], JsonSettings(kind="json", key=key, max_ahead_s=None)))
        self._keyed = key is not None
        self._windows: dict[str, deque[Float32Array]] = {}
        self._lines = 0
        self.rejected = 0
        """Lines that were no usable record."""

    def run(self, lines: BinaryIO, out: TextIO, complaints: TextIO) -> None:
        """Answer every line of *lines*, in order, as they come; a bad one is named in *complaints* and left out.

        An empty line is none. With a model of windows nothing is said of a key's first readings.
        """
        for block in _blocks(lines):
            for answer in self._answers(block, complaints):
                out.write(json.dumps(answer) + "\n")
            out.flush()

    def _answers(self, lines: Sequence[bytes], complaints: TextIO) -> Iterator[dict[str, Any]]:
        first = self._lines + 1
        self._lines += len(lines)
        numbers = [number for number, line in enumerate(lines, first) if line.strip()]
        values = [lines[number - first] for number in numbers]
        nothing, no_time = [None] * len(values), [0] * len(values)
        records = Records(TopicPartition("", 0), numbers, values, nothing, no_time, Position(self._lines + 1))
        samples, rejects = self._decoder.decode(records)
        for reject in rejects:
            complaints.write(f"line {reject.offset}: {reject.reason}: {reject.detail}\n")
        self.rejected += len(rejects)
        whole = [
            (number, key, row)
            for number, key, reading in zip(samples.offsets.tolist(), samples.keys.tolist(), samples.x, strict=True)
            if (row := self._row(key, reading)) is not None
        ]
        if not whole:
            return
        answers = self._answer(np.stack([row for _, _, row in whole]))
        for i, (number, key, _) in enumerate(whole):
            head = {"line": number, **({"key": key} if self._keyed else {})}
            yield {**head, **self._named({name: values[i] for name, values in answers.items()})}

    def _row(self, key: str, reading: Float32Array) -> Float32Array | None:
        """What the model is given: the reading, or the last ones of its key; None while they are too few."""
        window = self._manifest["window"]
        if window is None:
            return reading
        readings = self._windows.setdefault(key, deque(maxlen=window))
        readings.append(reading)
        return np.stack(readings) if len(readings) == window else None

    def _named(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """An answer for people: classes and numbers by their names, of a window the newest reading."""
        if "probabilities" in answer:
            probabilities = answer["probabilities"].tolist()
            labels = self._manifest["classes"] or [str(i) for i in range(len(probabilities))]
            named = dict(zip(labels, probabilities, strict=False))
            return {"class": max(named, key=lambda label: named[label]), "probabilities": named}
        names = self._manifest["predicts"]

        def by_name(value: Any) -> Any:
            if np.ndim(value) == 0:
                return float(value)
            return dict(zip(names, np.ravel(value)[-len(names) :].tolist(), strict=True))

        return {name: by_name(value) for name, value in answer.items()}


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / manifest.FILE_NAME
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{folder} is no export: it has no {manifest.FILE_NAME}") from None
    except ValueError as error:
        raise ExportDamagedError(f"{path} cannot be read: {error}") from error
    return found


def _blocks(lines: BinaryIO) -> Iterator[list[bytes]]:
    """Whole lines as soon as they are there, so that a pipe is answered at once and a file in large steps."""
    rest = b""
    # A pipe gives what it has; `read` would wait until the block is full.
    read = getattr(lines, "read1", lines.read)
    while block := read(_BLOCK_BYTES):
        *whole, rest = (rest + block).split(b"\n")
        yield whole
    if rest:
        yield [rest]
