"""A published export, loaded to answer rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from learnd.core.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from learnd.core.types import Float32Array, NamedArrays
    from learnd.export.reading import Answer


class ExportedModel:
    """A loaded export that answers rows; `load_export` makes one.

    Attributes
    ----------
    folder : the folder of the export
    format : the format that runs, such as ``saved_model``
    manifest : everything that ``learnd.json`` says of the export
    features : names of the inputs, in their order
    predicts : names of the numbers in one prediction
    classes : names of the classes, in the order of ``probabilities``; empty where there are none
    window : readings in one row; None: one
    """

    def __init__(self, folder: Path, format: str, manifest: Mapping[str, Any], answer: "Answer") -> None:
        self.folder = folder
        self.format = format
        self.manifest = manifest
        self.features: tuple[str, ...] = tuple(feature["name"] for feature in manifest["features"])
        self.predicts: tuple[str, ...] = tuple(manifest["predicts"])
        self.classes: tuple[str, ...] = tuple(manifest["classes"])
        self.window: int | None = manifest["window"]
        self._seasons: tuple[Mapping[str, Any] | None, ...] = tuple(f.get("season") for f in manifest["features"])
        self._missing: tuple[float | str | None, ...] = tuple(feature["missing"] for feature in manifest["features"])
        self._answer = answer

    def __repr__(self) -> str:
        return f"ExportedModel({str(self.folder)!r}, format={self.format!r}, features={self.features})"

    def predict(self, rows: "Sequence[Mapping[str, Any]] | npt.ArrayLike") -> "NamedArrays":
        """Return the outputs by name for n rows of raw values, in the units of the records.

        Parameters
        ----------
        rows : mappings from feature names to numbers (other fields are ignored), or an array of shape (n, features).
            A model with a window takes an array of shape (n, window, features), the oldest reading first. A missing
            value, None or NaN is replaced with the feature's ``missing``, if the configuration had one. A seasonal
            input is made from the mapping's time; in an array it is the number of seconds since its period began

        Returns
        -------
        float32 arrays by output name. A regression and a forecast give ``prediction`` of shape (n, targets), in the
        target's units, and ``lower`` and ``upper``, the ends of its interval at the moment of the export, if the
        configuration had intervals. A classification gives ``probabilities`` of shape (n, classes).

        Raises
        ------
        UsageError
            if a value is missing or not finite, or if the shape is wrong; it names the row.
        """
        import numpy as np

        if isinstance(rows, Mapping) or hasattr(rows, "to_dict"):  # the columns of a table may be in another order
            raise UsageError(
                f"rows: is of type {type(rows).__name__}, but must be a sequence of mappings or an array: for one row, "
                'pass a list of it; for a DataFrame, pass frame.to_dict("records")'
            )
        try:
            x = self._from_mappings(rows) if _holds_mappings(rows) else np.array(rows, np.float32)
        except (TypeError, ValueError) as error:
            raise UsageError(f"rows: are not an array of numbers: {error}") from error
        shape = (len(self.features),) if self.window is None else (self.window, len(self.features))
        if x.shape[1:] != shape:
            raise UsageError(
                f"rows: have the shape {x.shape}, but this model takes (n, {', '.join(map(str, shape))}), where the "
                f"last axis is {', '.join(self.features)}"
            )
        self._fill(x)
        answers = {name: np.asarray(values) for name, values in self._answer(x).items()}
        if intervals := self.manifest.get("intervals"):
            for end in ("lower", "upper"):
                answers[end] = answers["prediction"] + np.array(intervals[end], np.float32)
        return answers

    def _from_mappings(self, rows: Sequence[Mapping[str, Any]]) -> "Float32Array":
        """Return an array of shape (n, features); a missing value is NaN."""
        import numpy as np

        if self.window is not None:
            raise UsageError(
                f"rows: are mappings, but this model takes windows; pass an array of shape "
                f"(n, {self.window}, {len(self.features)})"
            )
        table = np.full((len(rows), len(self.features)), np.nan, np.float32)
        for i, row in enumerate(rows):
            for j, (name, season) in enumerate(zip(self.features, self._seasons, strict=True)):
                value = row.get(name)
                if value is None and season is not None:
                    value = _elapsed_s(row.get(season["time"]), season, f"rows[{i}]")
                if value is None:
                    continue
                try:
                    table[i, j] = value
                except (TypeError, ValueError) as error:
                    raise UsageError(f"rows[{i}]: {name} is {value!r}, which is not a number") from error
        return table

    def _fill(self, x: "Float32Array") -> None:
        """Replace NaN where the configuration says with what; raise `UsageError` for what remains."""
        import numpy as np

        for j, missing in enumerate(self._missing):
            column = x[..., j]
            if isinstance(missing, float):
                column[np.isnan(column)] = missing
            good = np.isfinite(column) | (np.isnan(column) if missing == "mean" else False)
            if not good.all():
                row = int(np.argwhere(~good)[0][0])
                raise UsageError(
                    f"rows[{row}]: {self.features[j]} is missing or not finite; leave the row out, or configure "
                    f"features.{self.features[j]}.missing before the export"
                )


def _elapsed_s(time: Any, season: Mapping[str, Any], place: str) -> float | None:
    """Return the seconds since the period of *season* began, at *time* in the form of the records; None without one."""
    from learnd.decoders.validation import BadRecord, time_s

    if time is None:
        return None
    try:
        seconds = time_s(time, season["time_unit"])
    except BadRecord as error:
        raise UsageError(f"{place}: {season['time']}: {error.detail}") from None
    elapsed: float = (seconds - season["origin_s"]) % season["period_s"]
    return elapsed


def _holds_mappings(rows: object) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return isinstance(rows, Sequence) and bool(rows) and isinstance(rows[0], Mapping)


def load_export(path: str | Path, *, format: str | None = None) -> ExportedModel:
    """Return the export in the folder *path*, such as ``data/boiler/exports/latest``, ready to predict.

    Nothing is compared with the manifest's hashes here: ``learnd inspect PATH --verify`` does that. An export may run
    code of its author, so load only what you trust.

    Parameters
    ----------
    format : one of the export's formats that can be run: ``saved_model``, ``tflite``, ``keras``, ``onnx`` ... Default:
        the first that can be run. A Keras file with layers of your own needs their module imported before

    Raises
    ------
    UsageError
        if *path* is not an export, or has no such format.
    ExportDamagedError
        if the export cannot be read.

    Examples
    --------
    >>> import learnd, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> settings = learnd.from_dict({
    ...     "data_dir": folder.name,
    ...     "source": {"kind": "simulator", "records": 100},
    ...     "features": ["temperature", "pressure"],
    ...     "target": "wear",
    ...     "model": {"kind": "linear"},
    ...     "learning": {"compile": False},
    ...     "export": {"formats": ["saved_model"]},
    ... })
    >>> model = learnd.load_export(learnd.run(settings).export)
    >>> model.features, model.predicts, model.manifest["samples"]
    (('temperature', 'pressure'), ('wear',), 100)
    >>> model.predict([{"temperature": 70.0, "pressure": 101.0}])["prediction"].shape
    (1, 1)
    >>> model.predict([[70.0, 101.0], [71.0, 100.0]])["prediction"].shape
    (2, 1)
    >>> folder.cleanup()
    """
    from learnd.export.reading import load_reader, read_manifest

    folder = Path(path)
    manifest = read_manifest(folder)
    chosen, answer = load_reader(folder, manifest["formats"], format)
    return ExportedModel(folder, chosen, manifest, answer)
