"""Warm-up requests: TensorFlow Serving answers them before a version gets traffic, so that no caller waits for it.

Place and form are TensorFlow Serving's ("SavedModel Warmup"): a TFRecord of PredictionLog messages.
"""

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from learnd.core.types import Float32Array

PLACE = Path("assets.extra", "tf_serving_warmup_requests")
_ROWS = (1, 32)
"""Rows per request: a single one, and a batch as Serving's own batching may form it."""


def write(saved_model: Path, inputs: Float32Array, names: list[str]) -> None:
    """Write requests with recent inputs, (m, *row_shape), for both signatures that predict.

    *names* are the argument names of the features in the signature ``records``.
    """
    path = saved_model / PLACE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for count in _ROWS:
            rows = inputs[[i % len(inputs) for i in range(count)]]
            columns = {name: rows[..., i] for i, name in enumerate(names)}
            file.write(_request("serving_default", {"inputs": rows}))
            file.write(_request("records", columns))


def _request(signature: str, tensors: Mapping[str, Float32Array]) -> bytes:
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    for name, values in tensors.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return bytes(log.SerializeToString())
