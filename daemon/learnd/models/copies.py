"""Layers that keep copies of their variables, such as `keras.layers.Normalization`."""

from learnd.core.tensors import KerasModel


def refresh_copies(model: KerasModel) -> None:
    """Renew the copies that layers of *model* keep of their variables. Call it after assigning variables.

    `Normalization` computes with the mean and variance that `finalize_state` copied from its variables. After an
    assignment it would go on with the old ones. A trace holds the copies as constants, so refresh them before tracing.
    """
    for layer in model._flatten_layers():
        finalize = getattr(layer, "finalize_state", None)
        if callable(finalize) and layer.built:
            finalize()
