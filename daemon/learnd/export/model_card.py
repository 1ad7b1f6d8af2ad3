"""``MODEL_CARD.md``: the manifest in words, for a person who opens the folder. Nothing else goes into it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learnd.core.kinds import NAIVE_FORECASTS

FILE_NAME = "MODEL_CARD.md"

_LITERT = """\
```python
from ai_edge_litert.interpreter import Interpreter
answer = Interpreter("{path}").get_signature_runner("serving_default")
answers = answer(inputs=row)  # float32, a batch of one
```"""
_LOADING = {
    "saved_model": """\
```python
import tensorflow as tf
loaded = tf.saved_model.load("{path}")  # keep this object: it owns the variables of its signatures
answers = loaded.signatures["serving_default"](inputs=tf.constant(rows, tf.float32))
```""",
    "tflite": _LITERT,
    "tflite_float16": _LITERT,
    "tflite_dynamic": _LITERT,
    "tflite_int8": _LITERT,
    "tflite_training": """\
```python
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter("{path}")
answers = interpreter.get_signature_runner("infer")(inputs=row)  # float32, a batch of one
train = interpreter.get_signature_runner("train")
shapes = {{name: detail["shape"] for name, detail in train.get_input_details().items()}}  # x, and y, of one step
batch = {{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}}  # your rows and their targets
loss = train(**batch)["loss"]
state = interpreter.get_signature_runner("get")()  # every variable that training changes
interpreter.get_signature_runner("set")(**state)  # restores them
```""",
    "keras": """\
```python
import keras
model = keras.models.load_model("{path}")  # compiled: model.fit continues the training
answers = model(rows, training=False)
```""",
    "hdf5": "Weights only, for `load_weights` of a model with the same layers, such as the one in the format `keras`.",
    "onnx": """\
```python
import onnxruntime
session = onnxruntime.InferenceSession("{path}")
answers = dict(zip((port.name for port in session.get_outputs()), session.run(None, {{"inputs": rows}})))
```""",
}
"""Instructions for loading each format. The card names a format that is not listed here by its path only."""


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """Write the card of the export that *document* describes: a manifest, which may still lack its ``files``."""
    (folder / FILE_NAME).write_text(card(document), encoding="utf-8")


def card(document: Mapping[str, Any]) -> str:
    """Return the card in Markdown."""
    parts = [
        f"# {document['name']}, export {document['number']}",
        f"A snapshot of a model (`{document['model']}`, for {document['task']}) that learns continuously from a "
        f"stream, published by learnd on {document['created_at']}. `learnd.json` describes the export for programs, in "
        "more detail.",
        "## Inputs",
        _inputs(document),
        "## Outputs",
        _outputs(document),
        "## Loading",
        *_loading(document),
        "## Training data",
        _origin(document),
        "## Quality",
        _quality(document),
        *_intervals(document),
        "## Verification",
        _verification(document),
    ]
    return "\n\n".join(parts) + "\n"


def _inputs(document: Mapping[str, Any]) -> str:
    ports = "; ".join(_port(port) for port in document["inputs"])
    window = document["window"]
    row = f"The last {window} readings of one key, the oldest first" if window else "One reading"
    scaling = "The model scales them internally." if _scaled(document, "inputs") else "The model does not scale them."
    ranges = any(feature[bound] is not None for feature in document["features"] for bound in ("min", "max"))
    faults = " Readings outside their range counted as sensor faults." if ranges else ""
    rows = [
        [str(i), f"`{_plain(feature['name'])}`", _bound(feature["min"]), _bound(feature["max"])]
        for i, feature in enumerate(document["features"])
    ]
    table = _table(["position", "feature", "minimum", "maximum"], rows)
    text = f"{ports}. {row}, as raw values in the units of the stream, in this order. {scaling}{faults}\n\n{table}"
    return "\n\n".join([text, *_seasons(document)])


def _seasons(document: Mapping[str, Any]) -> list[str]:
    """Return how to compute the seasonal inputs; nothing if there are none."""
    lines = []
    for feature in document["features"]:
        if (season := feature["season"]) is not None:
            remainder = f"(time - {season['origin_s']:.0f}) modulo {season['period_s']:g}"
            time = "that of the Kafka record" if season["time"] is None else f"`{_plain(season['time'])}`"
            lines.append(f"- `{_plain(feature['name'])}`: {remainder}, in seconds; the time is {time}")
    head = "Seasonal inputs. Times are seconds since 1970-01-01 UTC. Compute the remainder in float64:"
    return [head, "\n".join(lines)] if lines else []


def _outputs(document: Mapping[str, Any]) -> str:
    ports = "\n".join(f"- {_port(port)}" for port in document["outputs"])
    if document["classes"]:
        classes = _names(document["classes"])
        return f"{ports}\n\nProbabilities of {_plain(document['predicts'][0])}, in this order: {classes}."
    text = f"{ports}\n\nIn the units of the stream, in this order: {_names(document['predicts'])}."
    if any(port["name"] == "score" for port in document["outputs"]):
        text += f" `score` is the mean squared error over all of them, in {_units(document)}: larger is more anomalous."
    return text


def _loading(document: Mapping[str, Any]) -> list[str]:
    loading = [
        f"`{entry['path']}` ({name}):\n\n{_LOADING[name].format(path=entry['path'])}"
        if name in _LOADING
        else f"`{entry['path']}` ({name})."
        for name, entry in document["formats"].items()
    ]
    unavailable = [f"No {name}: {_plain(reason)}." for name, reason in document.get("unavailable", {}).items()]
    return [*loading, *unavailable]


def _origin(document: Mapping[str, Any]) -> str:
    times, parent = document["time_range"], document["parent"]
    rows = [
        [f"`{_plain(offset['topic'])}`", str(offset["partition"]), str(offset["next_offset"])]
        for offset in document["offsets"]
    ]
    table = _table(["topic", "partition", "next offset (not yet read)"], rows)
    order = f"The previous export was {parent['number']}." if parent else "This is the first export in its folder."
    if original := document["republished_of"]:
        order += f" An operator published the content of export {original} again."
    when = f", from {times['first']} to {times['last']}" if times else ""
    batches = document["updates"] != document["samples"]
    waiting = " The newest records that were read may still be waiting for a full micro-batch." if batches else ""
    counts = f"{document['samples']:,} samples in {document['updates']:,} updates{when}."
    return f"{counts}{waiting} {order}\n\n{table}"


def _quality(document: Mapping[str, Any]) -> str:
    scores = document["prequential"]
    rows = [
        [name, *(_figure(scores[key][figure]) for figure in ("loss", "absolute_error", "mean_loss"))]
        for name, key in (("averaged (in this export)", "averaged"), ("live (still learning)", "live"))
    ]
    error = "share of wrong classes" if document["classes"] else "absolute error"
    table = _table(["weights", "recent loss", f"recent {error}", "loss since the first sample"], rows)
    checks = "; ".join(
        f"{name}: {entry['difference_of_allowed']:.2g} times the allowed difference on {entry['verified_rows']} rows"
        for name, entry in document["formats"].items()
        if "difference_of_allowed" in entry and "verified_rows" in entry
    )
    return (
        "Every sample was predicted before it was learned, and these are the errors of those predictions. *Recent* "
        f"means over the last 1000 samples at most. The loss is {_loss(document)}. Weights that are still learning "
        "have just seen the samples before, so these errors are smaller than those of an export, whose weights do not "
        "change. "
        f"{_later_loss(document['parent'])}{_choice(document['weights'])}\n\n{table}\n\n{_skill(document)}\n\n"
        "Before publication, each file was loaded and compared with "
        f"the live model on recent inputs ({checks or 'see learnd.json'})."
    )


def _choice(weights: Mapping[str, Any] | None) -> str:
    """Return which weights are in the export, and why; empty if there was no choice.

    >>> _choice({"chosen": "live", "standing_loss": {"live": 0.5, "average": 0.75}})
    ' This export has the weights `live`. Loss while they stood still: live 0.5, average 0.75.'
    """
    if weights is None:
        return ""
    losses = ", ".join(f"{name} {_figure(loss)}" for name, loss in weights["standing_loss"].items())
    text = f" This export has the weights `{weights['chosen']}`."
    if losses:
        text += f" Loss while they stood still: {losses}."
    if weights["chosen"].startswith(("recent", "reservoir")):
        text += " The daemon answers with a mixture. Its other parts, such as the last value, are in no export."
    return text


def _skill(document: Mapping[str, Any]) -> str:
    """Return the comparison with the naive forecast, and the figures of the averaged weights and of the live ones."""
    recent, total = document["quality"]["recent"], document["quality"]["total"]
    baseline = NAIVE_FORECASTS[document["baseline"]]
    parent = document["parent"]
    later = parent["skill_since"] if parent is not None else None
    rows = [
        [name, *(_figure(figure) for figure in (recent["skill"][key], total["skill"][key], recent["error"][key]))]
        for name, key in (("averaged (in this export)", "averaged"), ("live (still learning)", "live"))
    ]
    rows.append(["naive forecast", "0", "0", _figure(recent["error"]["naive"])])
    export = f" The previous export had a skill of {_figure(later)} on samples after it." if later is not None else ""
    error = "log loss in nats" if document["classes"] else "mean absolute error"
    table = _table(["weights", "recent skill", "skill since the first sample", f"recent {error}"], rows)
    spans = [document["quality"][name]["measures"] for name in ("recent", "fading", "total")]
    figures = [
        [name, *(_figure(measures.get(name)) for measures in spans)] for name in sorted({n for m in spans for n in m})
    ]
    head = ["figure", "recent", "fading (half-life 5000 samples)", "since the first sample"]
    measures = "\n\n" + _table(head, figures) if figures else ""
    return (
        f"Skill compares the error with that of a naive forecast, {baseline}: 1 is perfect, 0 is as good as that "
        f"forecast, and less than 0 is worse.{export}\n\n{table}{measures}"
    )


def _intervals(document: Mapping[str, Any]) -> list[str]:
    """Return the section on prediction intervals; nothing if there are none."""
    intervals = document["intervals"]
    if intervals is None:
        return []
    ends = zip(document["predicts"], intervals["lower"], intervals["upper"], strict=True)
    rows = [[f"`{_plain(name)}`", f"{lower:+.4g}", f"{upper:+.4g}"] for name, lower, upper in ends]
    text = (
        f"About {100 * intervals['coverage']:g} % of the truths lie between these two numbers added to a prediction, "
        f"as of {intervals['samples']:,} samples, the newest of which count most. The daemon adapts them continuously. "
        "An export cannot, so it covers fewer once the stream has changed."
    )
    return ["## Prediction intervals", text, _table(["prediction of", "lower", "upper"], rows)]


def _later_loss(parent: Mapping[str, Any] | None) -> str:
    if parent is None or parent["loss_since"] is None:
        return "The error of this model's exports on later samples has not been measured yet."
    return (
        f"The previous export had a loss of {_figure(parent['loss_since'])} on {parent['samples_since']:,} samples "
        "that arrived after it. Expect about the same of this one."
    )


def _verification(document: Mapping[str, Any]) -> str:
    key = document["signing_key"]
    if key is None:
        return (
            "`learnd inspect . --verify` compares every file with its SHA-256 in `learnd.json`. The export is not "
            "signed."
        )
    return (
        "`learnd inspect . --verify --public-key FILE` compares every file with its SHA-256 in `learnd.json`, and "
        f"checks the signature of `learnd.json`. The key's id is `{key['id']}`. Without learnd: `openssl pkeyutl "
        "-verify -pubin -inkey FILE -rawin -in learnd.json -sigfile learnd.json.sig`."
    )


def _loss(document: Mapping[str, Any]) -> str:
    if document["loss"] != "the task's own":
        return _plain(document["loss"])
    return "cross-entropy, in nats" if document["classes"] else f"squared error, in {_units(document)}"


def _units(document: Mapping[str, Any]) -> str:
    """Return the units of the loss: outputs have the scale of the target, of its change, or of the inputs."""
    name = next((name for name in ("target", "change") if name in document["scaling"]), "inputs")
    return "standard deviations" if _scaled(document, name) else "the units of the stream"


def _scaled(document: Mapping[str, Any], name: str) -> bool:
    return bool(document["scaling"].get(name, {}).get("kind") == "online")


def _port(port: Mapping[str, Any]) -> str:
    shape = ", ".join("any" if size is None else str(size) for size in port["shape"])
    return f"`{_plain(port['name'])}`, {port['dtype']}, shape ({shape})"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{_plain(name)}`" for name in names)


def _plain(text: str) -> str:
    """Return a name from the stream or the configuration without characters that Markdown or a table interprets.

    >>> _plain("a|b`c\\nd<x>")
    'a b c d x '
    """
    return "".join(" " if c in "|`<>\\" or not c.isprintable() else c for c in text)


def _bound(bound: float | None) -> str:
    return "" if bound is None else f"{bound:g}"


def _figure(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown.

    >>> print(_table(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|---" * len(head) + "|" if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)
