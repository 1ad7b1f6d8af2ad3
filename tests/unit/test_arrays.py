"""Arrays as inputs: rows of any fixed shape reach the user's model in that shape."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from learnd.config.loader import from_values
from learnd.core.errors import ConfigError
from learnd.runtime.loop import run
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import SAVED_MODEL, settings
from tests.support.user_models import backbone_with_head

SHAPE = [4, 4, 1]
PLAIN: dict[str, Any] = {
    "features": {"image": {"shape": SHAPE}},
    "target": "label",
    "task": {"kind": "classification", "classes": ["dark", "bright"]},
    "model": {"factory": "tests.support.user_models:small_images", "freeze": {"layers": ["edges"]}},
    "scaling": {"inputs": "none"},
    "learning": {"mode": "micro_batch", "batch_size": 4, "compile": False},
    "averaging": {"kind": "none"},
}


def _images(count: int) -> Any:
    return np.random.default_rng(4).random((count, *SHAPE)).astype(np.float32)


def _is_bright(images: Any) -> Any:
    return images.mean(axis=(1, 2, 3)) > 0.5


def _records(images: Any, form: str) -> list[bytes]:
    if form == "packed":
        return [np.array([*i.ravel(), b], "<f4").tobytes() for i, b in zip(images, _is_bright(images), strict=True)]
    lists = [image.tolist() if form == "nested" else image.ravel().tolist() for image in images]
    labels = ["bright" if bright else "dark" for bright in _is_bright(images)]
    return [json.dumps({"image": i, "label": label}).encode() for i, label in zip(lists, labels, strict=True)]


def _learned(folder: Path, records: Sequence[bytes], **sections: Any) -> Any:
    collected: list[Any] = []
    options = settings(folder, **{**PLAIN, **sections})
    pipeline = make_pipeline(options, source=MemorySource(records), collected=collected)
    run(pipeline, stopping=lambda: False)
    return collected


def test_images_of_every_form_are_learned_as_in_keras(tmp_path: Path) -> None:
    """Nested lists, flat ones and packed rows. What is frozen stays; the export answers as Keras does."""
    images = _images(16)
    model = backbone_with_head(SHAPE, 2)
    model.get_layer("edges").trainable = False
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    expected = []
    for start in range(0, 16, 4):
        expected.append(model.predict_on_batch(images[start : start + 4]))
        model.train_on_batch(images[start : start + 4], _is_bright(images[start : start + 4]).astype(int))
    for form in ("nested", "flat", "packed"):
        packed = form == "packed"
        collected = _learned(
            tmp_path / form,
            _records(images, form),
            decode={"kind": "float32" if packed else "json"},
            task={"kind": "classification", "classes": ["0", "1"] if packed else ["dark", "bright"]},
            export=SAVED_MODEL if form == "flat" else {"formats": []},
        )
        answers = [row["probability"] for row in collected]
        np.testing.assert_allclose(answers, np.concatenate(expected).max(axis=1), rtol=1e-4)
    newest = max((tmp_path / "flat" / "exports").glob("[0-9]*"), key=lambda path: int(path.name))
    serve = tf.saved_model.load(str(newest / "saved_model")).signatures["serving_default"]
    answers = serve(inputs=tf.constant(images.reshape(16, -1)))["probabilities"]
    np.testing.assert_allclose(answers, model(images), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1.0, 2.0], "a list of 2"),
        ([[[0.0]] * 4] * 3, "a list of 3"),
        ("x", "text"),
        ([0.0] * 15 + ["x"], "image[15]"),
        (None, "image"),
    ],
)
def test_an_array_of_another_shape_is_rejected_with_the_reason(tmp_path: Path, value: Any, words: str) -> None:
    rejects = tmp_path / "rejects.jsonl"
    record = json.dumps({"image": value, "label": "dark"}).encode()
    model = {"kind": "linear"}
    assert not _learned(tmp_path, [record], dead_letter={"path": str(rejects)}, model=model)
    assert words in rejects.read_text()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"features": {"image": {"shape": [2]}, "a": {}}}, "must be the only feature"),
        ({"features": {"image": {"shape": [500, 500]}}}, "at most 65536"),
        ({"task": {"kind": "regression", "window": 3}}, "task.window"),
        ({"task": {"kind": "reconstruction"}, "target": None}, "task.kind"),
    ],
)
def test_what_no_array_can_have_is_refused(sections: dict[str, Any], words: str) -> None:
    values = {"source": {"kind": "simulator"}, **PLAIN, **sections}
    with pytest.raises(ConfigError, match=words):
        from_values({key: value for key, value in values.items() if value is not None})


def test_built_in_models_take_the_elements_as_a_row(tmp_path: Path) -> None:
    images = _images(8)
    model = {"kind": "mlp", "hidden": [4]}
    assert len(_learned(tmp_path, _records(images, "nested"), model=model, scaling={})) == 8
