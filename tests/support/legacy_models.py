"""Writes models with the old Keras 2 library: ``python -m tests.support.legacy_models FOLDER``.

Its own process, because tf_keras and Keras 3 would share one TensorFlow runtime, and because what reads these files
must not owe anything to the library that wrote them. Each model learns a few steps with Adam, so that no slot is zero;
``<name>.npz`` holds inputs and what Keras 2 computed from them, and Adam's slots.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras

ROWS = 32


def plain() -> Any:
    """Layers by type alone: their names are Keras' own."""
    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.LayerNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def windowed() -> Any:
    """Convolution and both recurrent layers, with names of the user's, in an order that is not the alphabet's."""
    layers = tf_keras.layers
    inputs = tf_keras.Input((6, 4))
    hidden = layers.Conv1D(5, 3, padding="causal", activation="tanh", name="waves")(inputs)
    memory = layers.LSTM(4, return_sequences=True, name="long")(hidden)
    memory = layers.GRU(3, name="gates")(memory)
    mean = layers.GlobalAveragePooling1D(name="mean")(hidden)
    both = layers.Concatenate(name="both")([memory, mean])
    return tf_keras.Model(inputs, layers.Dense(1, name="answer")(both), name="windowed")


def nested() -> Any:
    """A model in a model, whose encoder does not learn."""
    layers = tf_keras.layers
    encoder = tf_keras.Sequential(
        [layers.Input((4,)), layers.Dense(6, activation="tanh", name="narrow")], name="encoder"
    )
    encoder.trainable = False
    inputs = tf_keras.Input((4,))
    hidden = layers.Dense(5, activation="relu", name="middle")(encoder(inputs))
    return tf_keras.Model(inputs, layers.Dense(2, name="answer")(hidden), name="nested")


MODELS = {"plain": plain, "windowed": windowed, "nested": nested}


def train(model: Any, x: Any) -> None:
    """A few steps on noise."""
    outputs = model.output_shape[-1]
    generator = np.random.default_rng(2)
    y = generator.random((ROWS, outputs)).astype("float32")
    y /= y.sum(axis=1, keepdims=True)
    model.compile(tf_keras.optimizers.Adam(0.01), loss="mse")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False)


def answers(model: Any, x: Any) -> dict[str, Any]:
    """What the files must reproduce: outputs, and Adam's moments in the order of the trainable weights."""
    found = {"inputs": x, "outputs": model(x, training=False).numpy(), "iteration": model.optimizer.iterations.numpy()}
    slots = [v for v in model.optimizer.variables if "/m/" in v.name or "/v/" in v.name]
    for index, (variable, m, v) in enumerate(zip(model.trainable_variables, slots[::2], slots[1::2], strict=True)):
        assert tuple(variable.shape) == tuple(m.shape)
        found[f"momentum_{index}"], found[f"velocity_{index}"] = m.numpy(), v.numpy()
    return found


def write(name: str, folder: Path) -> None:
    """Every format of one model."""
    tf_keras.utils.set_random_seed(7)
    model = MODELS[name]()
    x = np.random.default_rng(1).normal(size=(ROWS, *model.input_shape[1:])).astype("float32")
    train(model, x)
    np.savez(folder / f"{name}.npz", **answers(model, x))
    model.save(folder / f"{name}.keras")
    model.save(folder / f"{name}.h5")
    model.save_weights(folder / f"{name}.weights.h5")
    # The dialect of Keras before 2.13: weights by layer name.
    model.save_weights(folder / f"{name}_old_weights.h5")
    (folder / f"{name}.json").write_text(model.to_json())
    model.save(folder / f"{name}_saved_model", save_format="tf")


def optimizers() -> dict[str, Any]:
    """Those whose slots Keras 3 has too, also as they were before 2.11."""
    new, old = tf_keras.optimizers, tf_keras.optimizers.legacy
    return {
        "sgd": new.SGD(0.01, momentum=0.9),
        "rmsprop": new.RMSprop(0.01, momentum=0.5, centered=True),
        "adagrad": new.Adagrad(0.01),
        "scheduled": new.AdamW(new.schedules.ExponentialDecay(0.01, 10, 0.9)),
        "older": old.Adam(0.01, decay=0.1),
    }


def write_optimizers(folder: Path) -> None:
    """A small model for each: saved half-way, with the outputs that the other half leads to."""
    x = np.random.default_rng(3).normal(size=(ROWS, 4)).astype("float32")
    layers = tf_keras.layers
    for name, optimizer in optimizers().items():
        model = tf_keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="tanh"), layers.Dense(2)])
        model.compile(optimizer, loss="mse")
        model.fit(x, x[:, :2], batch_size=8, epochs=2, verbose=0, shuffle=False)
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
        model.fit(x, x[:, :2], batch_size=8, verbose=0, shuffle=False)
        np.savez(folder / f"{name}.npz", inputs=x, outputs=model(x).numpy())


def adapted() -> Any:
    """A layer that has seen the data, and computes with copies of its variables."""
    layers = tf_keras.layers
    scale = layers.Normalization()
    scale.adapt(rows(seed=5) * 100 + 50)
    inputs = tf_keras.Input((4,))
    return tf_keras.Model(inputs, layers.Dense(1)(scale(inputs)))


def fine_tuned() -> Any:
    """A body that learns, called in inference mode, as Keras' guide on fine-tuning has it."""
    layers, draw = tf_keras.layers, np.random.default_rng(6)
    inner = tf_keras.Input((4,))
    hidden = layers.Dense(8, activation="relu")(inner)
    body = tf_keras.Model(inner, layers.Dropout(0.5)(layers.BatchNormalization()(hidden)), name="body")
    body.layers[-2].moving_mean.assign(draw.normal(size=8))
    body.layers[-2].moving_variance.assign(draw.uniform(0.5, 2.0, size=8))
    inputs = tf_keras.Input((4,))
    return tf_keras.Model(inputs, layers.Dense(1)(body(inputs, training=False)))


CONTINUED = {"adapted": adapted, "fine_tuned": fine_tuned}
"""Models whose further learning is recorded: each batch of 8 is predicted, then learned."""


def rows(*, seed: int) -> Any:
    """Inputs for the models above."""
    return np.random.default_rng(seed).normal(size=(ROWS, 4)).astype("float32")


def write_continued(folder: Path) -> None:
    """Each model as HDF5 and archive, with what Keras 2 predicted while it learned on."""
    for name, make in CONTINUED.items():
        tf_keras.utils.set_random_seed(8)
        model = make()
        model.compile(tf_keras.optimizers.SGD(0.01), "mse")
        model.save(folder / f"{name}.h5")
        model.save(folder / f"{name}.keras")
        x = rows(seed=9)
        y, predictions = x.sum(axis=1, keepdims=True), []
        for start in range(0, ROWS, 8):
            predictions.append(model.predict_on_batch(x[start : start + 8]))
            model.train_on_batch(x[start : start + 8], y[start : start + 8])
        np.savez(folder / f"{name}.npz", inputs=x, targets=y, predictions=np.concatenate(predictions))


def main() -> None:
    """Write all of them into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        write(name, folder)
    write_optimizers(folder)
    write_continued(folder)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
