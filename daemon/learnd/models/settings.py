"""Options of the built-in models."""

from typing import Annotated, Literal

from pydantic import Field

from learnd.section import Count, Section

Activation = Literal["relu", "tanh", "sigmoid", "elu", "gelu", "silu", "softplus"]
Widths = Annotated[list[Count], Field(min_length=1)]


class LinearSettings(Section):
    """One affine map: online linear regression."""

    kind: Literal["linear"]


class MlpSettings(Section):
    """Dense layers of the given widths."""

    kind: Literal["mlp"]
    hidden: Widths = [32, 16]
    activation: Activation = "relu"


class AutoencoderSettings(Section):
    """Dense layers down to the last width and up again, mirrored."""

    kind: Literal["autoencoder"]
    hidden: Widths = [16, 4]
    activation: Activation = "tanh"


class LstmSettings(Section):
    """One LSTM layer over the window, then an affine map."""

    kind: Literal["lstm"]
    units: Count = 32


class GruSettings(Section):
    """One GRU layer over the window, then an affine map."""

    kind: Literal["gru"]
    units: Count = 32


class Conv1dSettings(Section):
    """Causal convolutions over the window; its newest step and its mean over time, then an affine map."""

    kind: Literal["conv1d"]
    filters: Widths = [16]
    kernel_size: Count = 5
    activation: Activation = "relu"


AnyModel = Annotated[
    LinearSettings | MlpSettings | AutoencoderSettings | LstmSettings | GruSettings | Conv1dSettings,
    Field(discriminator="kind"),
]

SEQUENCE_MODELS = frozenset({"lstm", "gru", "conv1d"})
"""Models that want a window of readings."""
