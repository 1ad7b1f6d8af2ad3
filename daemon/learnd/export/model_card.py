"""``MODEL_CARD.md``: an export in words, for the person who finds the folder. Made from the manifest alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
loaded = tf.saved_model.load("{path}")  # keep it: it owns the variables of its signatures
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
shapes = {{name: detail["shape"] for name, detail in train.get_input_details().items()}}  # of one step: x, and y
batch = {{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}}  # your rows and their targets
loss = train(**batch)["loss"]
state = interpreter.get_signature_runner("get")()  # all that changes
interpreter.get_signature_runner("set")(**state)  # takes it back
```""",
    "keras": """\
```python
import keras
model = keras.models.load_model("{path}")  # compiled: model.fit goes on
answers = model(rows, training=False)
```""",
    "hdf5": "Weights alone: for `load_weights` of a model of the same layers, as the format `keras` holds one.",
    "onnx": """\
```python
import onnxruntime
session = onnxruntime.InferenceSession("{path}")
answers = dict(zip((port.name for port in session.get_outputs()), session.run(None, {{"inputs": rows}})))
```""",
}
"""How to load each format; one that is not here is named with its path alone."""


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """Write the card of what *document*, a manifest that may still lack its files, describes."""
    (folder / FILE_NAME).write_text(card(document), encoding="utf-8")


def card(document: Mapping[str, Any]) -> str:
    """The card in Markdown."""
    parts = [
        f"# {document['name']}, export {document['number']}",
        f"A snapshot of a model (`{document['model']}`, for {document['task']}) that goes on learning from a stream, "
        f"published by learnd on {document['created_at']}. `learnd.json` holds what is here, and more, for programs.",
        "## What goes in",
        _inputs(document),
        "## What comes out",
        _outputs(document),
        "## How to load it",
        *_loading(document),
        "## What it learned from",
        _origin(document),
        "## How good it is",
        _quality(document),
        "## How to check it",
        _checking(document),
    ]
    return "\n\n".join(parts) + "\n"


def _inputs(document: Mapping[str, Any]) -> str:
    ports = "; ".join(_port(port) for port in document["inputs"])
    window = document["window"]
    each = f"The last {window} readings of one key, the oldest first" if window else "One reading"
    scaling = "The model scales them itself." if _scaled(document, "inputs") else "They are not scaled."
    ranges = any(feature[bound] is not None for feature in document["features"] for bound in ("min", "max"))
    faults = " Readings outside of their range were taken for faults." if ranges else ""
    rows = [
        [str(i), f"`{_plain(feature['name'])}`", _bound(feature["min"]), _bound(feature["max"])]
        for i, feature in enumerate(document["features"])
    ]
    table = _table(["position", "feature", "least", "most"], rows)
    return f"{ports}. {each}, as raw values in the units of the stream, in this order. {scaling}{faults}\n\n{table}"


def _outputs(document: Mapping[str, Any]) -> str:
    ports = "\n".join(f"- {_port(port)}" for port in document["outputs"])
    if document["classes"]:
        named = _names(document["classes"])
        return f"{ports}\n\nProbabilities of {_plain(document['predicts'][0])}, in this order: {named}."
    units = f"{ports}\n\nIn the units of the stream, in this order: {_names(document['predicts'])}."
    if any(port["name"] == "score" for port in document["outputs"]):
        units += f" `score` is the mean squared error of all of them in {_units(document)}: the larger, the stranger."
    return units


def _loading(document: Mapping[str, Any]) -> list[str]:
    loading = [
        f"`{entry['path']}` ({name}):\n\n{_LOADING[name].format(path=entry['path'])}"
        if name in _LOADING
        else f"`{entry['path']}` ({name})."
        for name, entry in document["formats"].items()
    ]
    without = [f"No {name}: {_plain(reason)}." for name, reason in document.get("unavailable", {}).items()]
    return [*loading, *without]


def _origin(document: Mapping[str, Any]) -> str:
    times, parent = document["time_range"], document["parent"]
    rows = [
        [f"`{_plain(offset['topic'])}`", str(offset["partition"]), str(offset["next_offset"])]
        for offset in document["offsets"]
    ]
    table = _table(["topic", "partition", "read up to, not including, offset"], rows)
    before = f"The export before it was {parent['number']}." if parent else "It is the first export of its folder."
    when = f", from {times['first']} to {times['last']}" if times else ""
    batches = document["updates"] != document["samples"]
    waiting = " Of what was read, the newest may still wait for their micro-batch to be full." if batches else ""
    counts = f"{document['samples']:,} samples in {document['updates']:,} updates{when}."
    return f"{counts}{waiting} {before}\n\n{table}"


def _quality(document: Mapping[str, Any]) -> str:
    judged = document["prequential"]
    rows = [
        [name, *(_figure(judged[key][figure]) for figure in ("loss", "absolute_error", "mean_loss"))]
        for name, key in (("averaged, which are in this export", "averaged"), ("live, which go on learning", "live"))
    ]
    error = "share of wrong classes" if document["classes"] else "absolute error"
    table = _table(["weights", "loss, lately", f"{error}, lately", "loss, since the first sample"], rows)
    checks = "; ".join(
        f"{name}: {entry['difference_of_allowed']:.2g} of the allowed difference on {entry['verified_rows']} rows"
        for name, entry in document["formats"].items()
        if "difference_of_allowed" in entry and "verified_rows" in entry
    )
    return (
        f"Every sample was predicted before it was learned; these are the errors of those predictions. Lately: over at "
        f"most 1000 samples. The loss is {_loss(document)}. Weights that "
        f"go on learning have just seen what came before, so these errors are smaller than those of an export, which "
        f"stands still. {_forward(document['parent'])}\n\n{table}\n\nBefore it was published, each file was "
        f"loaded and compared with the learning model on recent inputs ({checks or 'see learnd.json'})."
    )


def _forward(parent: Mapping[str, Any] | None) -> str:
    if parent is None or parent["loss_since"] is None:
        return "How exports of this model do on what comes after them is not known yet."
    return (
        f"The export before this one did so on {parent['samples_since']:,} samples that came after it: its loss was "
        f"{_figure(parent['loss_since'])}. Expect as much of this one."
    )


def _checking(document: Mapping[str, Any]) -> str:
    key = document["signing_key"]
    if key is None:
        return "`learnd inspect . --verify` compares every file with its SHA-256 in `learnd.json`. It is not signed."
    return (
        "`learnd inspect . --verify --public-key FILE` compares every file with its SHA-256 in `learnd.json`, and that "
        f"with its signature. The key's id is `{key['id']}`. Without learnd: `openssl pkeyutl -verify -pubin -inkey "
        "FILE -rawin -in learnd.json -sigfile learnd.json.sig`."
    )


def _loss(document: Mapping[str, Any]) -> str:
    if document["loss"] != "the task's own":
        return _plain(document["loss"])
    return "cross-entropy, in nats" if document["classes"] else f"squared error, in {_units(document)}"


def _units(document: Mapping[str, Any]) -> str:
    """Those of a loss: what comes out has the scale of the target, of its change, or of what came in."""
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
    """A name from the stream or the configuration, without what Markdown or a table would take for its own.

    >>> _plain("a|b`c\\nd<x>")
    'a b c d x '
    """
    return "".join(" " if c in "|`<>\\" or not c.isprintable() else c for c in text)


def _bound(bound: float | None) -> str:
    return "" if bound is None else f"{bound:g}"


def _figure(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    >>> print(_table(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|---" * len(head) + "|" if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)
