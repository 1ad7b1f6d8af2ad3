"""Properties that a model of the user's must have. Each is checked before the first record is read."""

from typing import Any

from learnd.core.errors import ConfigError, Problem
from learnd.core.tensors import KerasModel
from learnd.models.stored.inference import infers_always

_OTHER_FLOATS = frozenset({"float64", "float16", "bfloat16"})


def require_stateless(model: KerasModel, place: str) -> None:
    """Refuse layers that keep a state from batch to batch, and a fixed batch size, which such layers need.

    A stream has many keys, and an export answers rows in any order, so the state would mean nothing.

    Raises
    ------
    ConfigError
        at *place* in the configuration, with the names of the layers.
    """
    names = [layer.name for layer in model._flatten_layers() if getattr(layer, "stateful", False) is True]
    if names:
        message = (
            f"the layers {', '.join(names)} are stateful: their state would mix the keys of the stream, and no export"
            " can hold it; build them with stateful=False and give each row its history by task.window"
        )
        raise ConfigError(Problem(place, message))
    inputs = getattr(model, "inputs", None) or []
    sizes = [tensor.shape[0] for tensor in inputs if tensor.shape[0] is not None]
    if sizes:
        message = (
            f"the model takes batches of exactly {sizes[0]} rows; build its input with keras.Input(shape=...) instead"
            " of batch_shape, and copy the weights by set_weights(get_weights())"
        )
        raise ConfigError(Problem(place, message))


def require_float32(model: KerasModel, place: str) -> None:
    """Refuse weights in float64 or half precision: updates and exports keep weights in float32.

    Raises
    ------
    ConfigError
        at *place* in the configuration, with the names of the weights.
    """
    others = [variable for variable in model.weights if variable.dtype in _OTHER_FLOATS]
    names = [f"{variable.path} ({variable.dtype})" for variable in others]
    if names:
        more = " and others" if len(names) > 5 else ""
        message = (
            f"the weights {', '.join(names[:5])}{more} are not float32, and the model cannot be rebuilt in float32;"
            " build it with dtype='float32' and copy the weights by set_weights(get_weights())"
        )
        raise ConfigError(Problem(place, message))


def in_float32(model: KerasModel) -> KerasModel:
    """Return *model* rebuilt in float32 if it has weights of another precision, or float64 layers, and Keras can do so.

    Otherwise *model* itself; `require_float32` then says what to do. Weights lose the digits that float32 lacks. Mixed
    precision stays as it is: its weights are float32.
    """
    layers = model._flatten_layers()
    precise = any(getattr(layer, "compute_dtype", None) == "float64" for layer in layers)
    if not precise and all(variable.dtype not in _OTHER_FLOATS for variable in model.weights):
        return model
    if any(infers_always(layer) for layer in layers):  # a rebuilt layer would not know
        return model
    try:
        rebuilt: KerasModel = type(model).from_config(_float32(model.get_config()))
        rebuilt.set_weights(model.get_weights())
    except Exception:  # whatever a user's own class raises; the model is refused with a way out
        return model
    return rebuilt


def _float32(config: Any) -> Any:
    """Return *config* with every other precision replaced by float32.

    >>> _float32({"dtype": {"config": {"name": "float64"}}, "layers": [{"dtype": "float64", "units": 3}]})
    {'dtype': {'config': {'name': 'float32'}}, 'layers': [{'dtype': 'float32', 'units': 3}]}
    """
    if isinstance(config, dict):
        return {key: _float32(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_float32(value) for value in config)
    return "float32" if isinstance(config, str) and config in _OTHER_FLOATS else config
