"""Models as users write them, for `model.factory` and for files: each learns a first batch before it is used."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


@keras.saving.register_keras_serializable(package="user_models")
class Subclass(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A subclassed model that ends with an activation of its own."""

    def __init__(self, units: int, end: str | None, **options: Any) -> None:
        super().__init__(**options)
        self.units, self.end = units, end
        self.hidden = layers.Dense(8, "tanh")
        self.last = layers.Dense(units, end)

    def call(self, x: Any) -> Any:
        return self.last(self.hidden(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "end": self.end}


@keras.saving.register_keras_serializable(package="user_models")
class ByHand(Subclass):
    """Probabilities by elementary operations, whose end no table of operations knows."""

    def call(self, x: Any) -> Any:
        z = super().call(x)
        if self.units == 1:
            return 1.0 / (1.0 + ops.exp(-z))
        e = ops.exp(z - ops.max(z, axis=1, keepdims=True))
        return e / ops.sum(e, axis=1, keepdims=True)


def subclass(units: int, end: str | None) -> Any:
    model = Subclass(units, end)
    model(tf.zeros((1, 4)))
    return model


def by_hand(units: int) -> Any:
    """Return exclusive probabilities, or a single one."""
    model = ByHand(units, None)
    model(tf.zeros((1, 4)))
    return model


def functional(units: int, end: Callable[[Any], Any]) -> Any:
    """A functional model whose last operation is *end*."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, end(layers.Dense(units)(layers.Dense(8, "tanh")(inputs))))


def nested(units: int) -> Any:
    """A subclassed model with a softmax inside a functional one."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dropout(0.5)(subclass(units, "softmax")(inputs)))


def compiled(model: Any, optimizer: Any, loss: Any, *, classes: int = 0) -> Any:
    """Return *model*, compiled and trained on one batch, so that its optimizer has a state."""
    model.compile(optimizer, loss)
    draw = np.random.default_rng(3)
    x = draw.normal(size=(8, 4)).astype("float32")
    y = draw.integers(0, classes, 8) if classes else x.sum(axis=1, keepdims=True)
    model.train_on_batch(x, y)
    return model


def regression(*, loss: Any = "mae") -> Any:
    keras.utils.set_random_seed(5)
    return compiled(functional(1, lambda z: z), keras.optimizers.SGD(0.05, momentum=0.9), loss)


def with_named_loss(input_shape: Any, outputs: int) -> Any:
    return regression()


def with_loss_object(input_shape: Any, outputs: int) -> Any:
    return regression(loss=keras.losses.Huber(delta=0.3))


def with_loss_list(input_shape: Any, outputs: int) -> Any:
    return regression(loss=["mae"])


def with_scaled_loss(input_shape: Any, outputs: int) -> Any:
    """The optimizer for float16, which multiplies the loss before and divides the gradient after."""
    keras.utils.set_random_seed(5)
    inner = keras.optimizers.Adam(0.01)
    return compiled(functional(1, lambda z: z), keras.optimizers.LossScaleOptimizer(inner), "mse")


def with_regularizers(input_shape: Any, outputs: int) -> Any:
    """Penalties on single weights: kernel, bias and activity."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, "tanh", kernel_regularizer="l2", bias_regularizer=keras.regularizers.L1(0.1))(inputs)
    answer = layers.Dense(1, activity_regularizer=keras.regularizers.L2(0.05))(hidden)
    return compiled(keras.Model(inputs, answer), keras.optimizers.SGD(0.05), "mse")


def classifier(input_shape: Any, outputs: int) -> Any:
    keras.utils.set_random_seed(5)
    return compiled(subclass(3, "softmax"), keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", classes=3)


def binary(input_shape: Any, outputs: int) -> Any:
    """One sigmoid, by an operation outside of any layer."""
    keras.utils.set_random_seed(5)
    return compiled(functional(1, ops.sigmoid), keras.optimizers.SGD(0.1), "binary_crossentropy", classes=2)


def embedding(*, dtype: str = "float32", size: int = 20) -> Any:
    keras.utils.set_random_seed(5)
    inputs = keras.Input((2,), dtype=dtype)
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(layers.Embedding(size, 3)(inputs))))


def with_ids(input_shape: Any, outputs: int) -> Any:
    return embedding(dtype="int32")


def adapted_to(mean: float) -> Any:
    """A factory's model whose first layer adapts to other data at each start."""
    keras.utils.set_random_seed(5)
    scale = layers.Normalization()
    scale.adapt(np.random.default_rng(1).normal(size=(64, 4)) * 3.0 + mean)
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1)(scale(inputs)))


starts = 0


def adapts_at_each_start(input_shape: Any, outputs: int) -> Any:
    global starts
    starts += 1
    return adapted_to(10.0 * starts)


def without_tflite(input_shape: Any, outputs: int) -> Any:
    """A model with an operation that TensorFlow Lite lacks."""
    inputs = keras.Input(input_shape)
    z = layers.Dense(outputs)(inputs)
    return keras.Model(inputs, layers.Lambda(lambda v: tf.math.erfinv(0.9 * tf.tanh(v)))(z))


def backbone_with_head(input_shape: Any, outputs: int) -> Any:
    """Convolutions that are pooled, with a new head: how people fine-tune on images."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input(tuple(input_shape))
    features = layers.Conv2D(3, 2, activation="relu", name="edges")(inputs)
    pooled = layers.GlobalAveragePooling2D()(features)
    return keras.Model(inputs, layers.Dense(outputs, "softmax", name="answer")(pooled))


def small_images(input_shape: Any, outputs: int) -> Any:
    model = backbone_with_head(input_shape, outputs)
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    return model


def backbone_of_keras(input_shape: Any, outputs: int) -> Any:
    """A network of `keras.applications` without its top, and a new head with dropout."""
    keras.utils.set_random_seed(5)
    body = keras.applications.MobileNetV2(
        tuple(input_shape), alpha=0.35, include_top=False, weights=None, pooling="avg", name="mobilenet"
    )
    _observe_statistics(body, np.random.default_rng(0).normal(size=(64, *input_shape)).astype("float32"))
    inputs = keras.Input(tuple(input_shape))
    features = layers.Dropout(0.2)(body(inputs))
    return keras.Model(inputs, layers.Dense(outputs, name="head")(features))


def _observe_statistics(body: Any, images: Any) -> None:
    """Give batch normalisation the statistics of *images*, as training would: random weights alone end in zeros."""
    norms = [layer for layer in body.layers if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    body(images, training=True)
    for layer in norms:
        layer.momentum = 0.999
