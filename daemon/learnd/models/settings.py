"""Options of the models: built in, made by the user's code, or loaded; and how any of them is reshaped."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from learnd.core.settings_base import Address, Count, Section

Activation = Literal["relu", "tanh", "sigmoid", "elu", "gelu", "silu", "softplus"]
Widths = Annotated[list[Count], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Strength = Annotated[float, Field(ge=0)]


class HeadSettings(Section):
    """A new end: the last layers are taken off and one dense layer takes their place."""

    replace: Count = 1
    """So many of the last layers with weights go, and whatever stands behind them."""
    at: str | None = None
    """Keep up to this layer (a SavedModel: up to this tensor), rather than counting."""
    units: Count | None = None
    """Outputs; absent: what the task asks for, one per target or class."""
    old_units: Count | None = None
    """Outputs of the one that goes, where `load` holds weights alone and the architecture must be made to fit them."""
    hidden: list[Count] = []
    """Widths of dense layers before the last one."""
    activation: Activation = "relu"
    """Of the hidden ones. The last one is affine: the task knows what its numbers mean."""


class FreezeSettings(Section):
    """Which layers do not learn, and for how long. Frozen batch-normalisation statistics stay still."""

    all_but_last: Count | None = None
    """Only the last so many layers with weights learn."""
    layers: list[str] = []
    """Layers by name; `*` and `?` stand for any letters, as in file names."""
    until_samples: Count | None = None
    """They learn once the model has learned so many samples; absent: never."""


class ModelSettings(Section):
    """The options and answers that all models share."""

    kind: str
    needs_window: ClassVar[bool] = False
    """Whether the model wants a sequence of readings."""
    only_task: ClassVar[str | None] = None
    """The only kind of task that the model fits; None: it fits all."""
    has_end: ClassVar[bool] = False
    """Whether the model has an end of its own, which a head can replace."""
    brings_classes: ClassVar[bool] = False
    """Whether the outputs stand for classes that the configuration has to name."""

    load: Path | None = None
    """Weights to begin with: a file or folder of one of the formats in the README."""
    head: HeadSettings | None = None
    """Takes the last layers off and puts new ones in their place; `{}` is one dense layer, as the task wants it."""
    freeze: FreezeSettings | None = None
    """Which layers do not learn."""
    code: list[Address] = []
    """Modules, or classes as `package.module:Class`, that the loaded file needs."""
    allow_lambda: list[str] = []
    """Lambda layers of the loaded file by name; they are code that runs, so none is loaded unless named here."""

    @property
    def normalizes_batches(self) -> bool:
        """Whether layers learn the statistics of a batch, which needs more than one row."""
        return False

    @property
    def architecture_file(self) -> Path | None:
        """The file that holds the architecture, next to the weights."""
        return None


class _Regularized(ModelSettings):
    l1: Strength = 0.0
    """Penalty on the sum of the kernels' absolute values."""
    l2: Strength = 0.0
    """Penalty on the sum of the kernels' squares."""
    dropout: Share = 0.0
    """Share of each hidden layer's outputs that is dropped while learning."""
    normalization: Literal["batch", "layer"] | None = None
    """Behind each hidden layer, before its activation."""

    @property
    def normalizes_batches(self) -> bool:
        return self.normalization == "batch"


class LinearSettings(ModelSettings):
    """One affine map: online linear regression."""

    kind: Literal["linear"]
    l1: Strength = 0.0
    """Penalty on the sum of the kernel's absolute values."""
    l2: Strength = 0.0
    """Penalty on the sum of the kernel's squares."""


class MlpSettings(_Regularized):
    """Dense layers of the given widths."""

    kind: Literal["mlp"]
    hidden: Widths = [32, 16]
    """Widths of the layers."""
    activation: Activation = "relu"
    """Behind each of them."""


class AutoencoderSettings(_Regularized):
    """Dense layers down to the last width and up again, mirrored."""

    kind: Literal["autoencoder"]
    only_task: ClassVar[str | None] = "reconstruction"
    hidden: Widths = [16, 4]
    """Widths on the way down; the last is the bottleneck."""
    activation: Activation = "tanh"
    """Behind each of them."""


class LstmSettings(_Regularized):
    """One LSTM layer over the window, then an affine map."""

    kind: Literal["lstm"]
    needs_window: ClassVar[bool] = True
    units: Count = 32
    """Width of its state."""


class GruSettings(_Regularized):
    """One GRU layer over the window, then an affine map."""

    kind: Literal["gru"]
    needs_window: ClassVar[bool] = True
    units: Count = 32
    """Width of its state."""


class Conv1dSettings(_Regularized):
    """Causal convolutions over the window; its newest step and its mean over time, then an affine map."""

    kind: Literal["conv1d"]
    needs_window: ClassVar[bool] = True
    filters: Widths = [16]
    """Of each convolution."""
    kernel_size: Count = 5
    """Steps that one looks back over."""
    activation: Activation = "relu"
    """Behind each of them."""


class TcnSettings(_Regularized):
    """A temporal convolutional network: residual blocks of causal convolutions, each dilated twice the one before."""

    kind: Literal["tcn"]
    needs_window: ClassVar[bool] = True
    filters: Count = 16
    """Of every convolution."""
    kernel_size: Annotated[int, Field(ge=2)] = 3
    """Steps that one looks back over."""
    blocks: Count | None = None
    """Absent: as many as it takes to see the whole window."""
    activation: Activation = "relu"
    """Behind each convolution."""


class FactorySettings(ModelSettings):
    """The user's own code: a function that is called with ``input_shape`` and ``outputs`` and returns a Keras model."""

    kind: Literal["factory"]
    has_end: ClassVar[bool] = True
    factory: Address
    """`package.module:function`, on the Python path."""
    arguments: dict[str, Any] = {}
    """Further keyword arguments for it."""


class LoadSettings(ModelSettings):
    """A model whose architecture is in what is loaded, or in a JSON file beside it."""

    kind: Literal["load"]
    has_end: ClassVar[bool] = True
    brings_classes: ClassVar[bool] = True
    load: Path
    """A file or folder of one of the formats in the README; it is copied into the `data_dir` at the first start."""
    architecture: Path | None = None
    """A Keras architecture as JSON (`model.to_json()`), where `load` holds weights alone."""
    signature: str = "serving_default"
    """Of a SavedModel."""
    output: str | None = None
    """Of the signature, where it has several."""

    @property
    def architecture_file(self) -> Path | None:
        return self.architecture


AnyModel = Annotated[
    LinearSettings
    | MlpSettings
    | AutoencoderSettings
    | LstmSettings
    | GruSettings
    | Conv1dSettings
    | TcnSettings
    | FactorySettings
    | LoadSettings,
    Field(discriminator="kind"),
]
