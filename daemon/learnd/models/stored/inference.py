"""Layers that stay in inference mode while the rest of their model learns."""

from collections.abc import Callable
from functools import wraps

from learnd.core.tensors import Layer, Tensor

_MARK = "learnd_infers_always"


def infer_always(layer: Layer) -> None:
    """Keep *layer*, and every layer inside it, in inference mode.

    In Keras 2 ``body(x, training=False)`` does so: batch normalisation keeps its statistics, and dropout is off. Keras
    3 passes the mode of the whole model to each layer instead. Call it after the layer's weights exist.
    """
    for part in layer._flatten_layers():  # type: ignore[attr-defined]  # Keras has no types
        if part._call_has_training_arg and not infers_always(part):
            part.call = _in_inference(part.call)
            setattr(part, _MARK, True)


def infers_always(layer: Layer) -> bool:
    """Return whether `infer_always` was called for *layer*."""
    return bool(getattr(layer, _MARK, False))


def _in_inference(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(call)
    def inference(*arguments: object, **options: object) -> Tensor:
        return call(*arguments, **{**options, "training": False})

    return inference
