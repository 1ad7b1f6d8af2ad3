"""Settings of the models: built in, made by the user's code, or loaded from a file."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from learnd.core.settings_base import Address, Count, Section

Activation = Literal["relu", "tanh", "sigmoid", "elu", "gelu", "silu", "softplus"]
Widths = Annotated[list[Count], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Strength = Annotated[float, Field(ge=0)]


class HeadSettings(Section):
    """A new output end: removes the last layers of the model and puts new dense layers in their place."""

    replace: Count = 1
    """Number of layers to remove, counted from the end. Only layers with weights count; layers without weights after
    them are removed too."""
    at: str | None = None
    """Last layer to keep, by name, instead of a count in `replace`. For a SavedModel: the last tensor to keep."""
    units: Count | None = None
    """Outputs of the new last layer. Absent: what the task needs, one per target or class."""
    old_units: Count | None = None
    """Outputs of the layer that is removed. Needed only if the file in `load` holds weights without an architecture:
    the model is first built with this many outputs, so that the weights fit."""
    hidden: list[Count] = []
    """Widths of additional dense layers before the new last one."""
    activation: Activation = "relu"
    """Activation of the `hidden` layers. The last layer has none: the task interprets its outputs."""


class FreezeSettings(Section):
    """Layers that do not learn. Statistics of frozen batch-normalisation layers do not change either."""

    all_but_last: Count | None = None
    """Freeze everything except the last N layers with weights."""
    layers: list[str] = []
    """Names of layers to freeze. `*` and `?` are wildcards, as in file names."""
    until_samples: Count | None = None
    """Number of learned samples after which the frozen layers start to learn. Absent: they never do."""


class ModelSettings(Section):
    """The options and answers that all models share."""

    kind: str
    needs_window: ClassVar[bool] = False
    """True if the model needs a sequence of readings."""
    only_task: ClassVar[str | None] = None
    """The only kind of task that the model fits; None: it fits all."""
    has_end: ClassVar[bool] = False
    """True if the model has last layers of its own, which a head can replace."""
    brings_classes: ClassVar[bool] = False
    """True if the outputs stand for classes that the configuration has to name."""

    learns_by_itself: ClassVar[bool] = True
    """True if ``learning.mode: auto`` is made for the model: its architecture is built in, and it is new."""
    replays: ClassVar[bool] = False
    """True if an update is cheap enough to learn several replayed samples with each new one."""

    load: Path | None = None
    """Pretrained weights to start from: a `.keras`, `.h5` or `.weights.h5` file, a SavedModel folder, the prefix of a
    `tf.train.Checkpoint`, or the `data_dir` or an export of another learnd. Copied into `data_dir` at the first
    start."""
    head: HeadSettings | None = None
    """Replace the last layers by new ones. `{}` replaces the last layer by one dense layer with the outputs that the
    task needs."""
    freeze: FreezeSettings | None = None
    """Keep some layers from learning."""
    code: list[Address] = []
    """Python modules, or classes as `package.module:Class`, that define the custom layers, losses and functions of the
    file in `load`."""
    allow_lambda: list[str] = []
    """Names of Lambda layers in the file in `load` that may be loaded. Lambda layers run code from the file, so any
    that is not listed here is refused."""

    @property
    def normalizes_batches(self) -> bool:
        """True if layers learn the statistics of a batch, which needs more than one row."""
        return False

    @property
    def architecture_file(self) -> Path | None:
        """The file that holds the architecture, next to the weights."""
        return None


class RegularizedSettings(ModelSettings):
    """Options that every model with hidden layers has."""

    l1: Strength = 0.0
    """Strength of the L1 penalty: this times the sum of the kernels' absolute values is added to the loss."""
    l2: Strength = 0.0
    """Strength of the L2 penalty: this times the sum of the kernels' squares is added to the loss."""
    dropout: Share = 0.0
    """Share of each hidden layer's outputs that is dropped during learning."""
    normalization: Literal["batch", "layer"] | None = None
    """Normalisation after each hidden layer and before its activation."""

    @property
    def normalizes_batches(self) -> bool:
        return self.normalization == "batch"


class LinearSettings(ModelSettings):
    """One affine map: online linear regression."""

    kind: Literal["linear"]
    replays: ClassVar[bool] = True
    l1: Strength = 0.0
    """Strength of the L1 penalty: this times the sum of the kernels' absolute values is added to the loss."""
    l2: Strength = 0.0
    """Strength of the L2 penalty: this times the sum of the kernels' squares is added to the loss."""


class MlpSettings(RegularizedSettings):
    """A stack of dense layers."""

    kind: Literal["mlp"]
    replays: ClassVar[bool] = True
    hidden: Widths = [32, 16]
    """Widths of the hidden layers."""
    activation: Activation = "relu"
    """Activation of each hidden layer."""


class AutoencoderSettings(RegularizedSettings):
    """Dense layers that narrow down to a bottleneck and widen again, mirrored."""

    kind: Literal["autoencoder"]
    only_task: ClassVar[str | None] = "reconstruction"
    hidden: Widths | None = None
    """Widths of the encoder's layers. The last one is the bottleneck; the decoder mirrors the others. Absent: 16, then
    half of the inputs, but at most 4."""
    activation: Activation = "tanh"
    """Activation of each hidden layer."""


class LstmSettings(RegularizedSettings):
    """One LSTM layer over the window, then an affine map."""

    kind: Literal["lstm"]
    needs_window: ClassVar[bool] = True
    units: Count = 32
    """Width of the layer's state."""


class GruSettings(RegularizedSettings):
    """One GRU layer over the window, then an affine map."""

    kind: Literal["gru"]
    needs_window: ClassVar[bool] = True
    units: Count = 32
    """Width of the layer's state."""


class Conv1dSettings(RegularizedSettings):
    """Causal convolutions over the window. An affine map takes their newest step and their mean over time."""

    kind: Literal["conv1d"]
    needs_window: ClassVar[bool] = True
    filters: Widths = [16]
    """Number of filters of each convolution, one entry per layer."""
    kernel_size: Count = 5
    """Steps that each convolution sees, the newest included."""
    activation: Activation = "relu"
    """Activation of each convolution."""


class TcnSettings(RegularizedSettings):
    """A temporal convolutional network: residual blocks of causal convolutions, with doubled dilation at each block."""

    kind: Literal["tcn"]
    needs_window: ClassVar[bool] = True
    filters: Count = 16
    """Number of filters of every convolution."""
    kernel_size: Annotated[int, Field(ge=2)] = 3
    """Steps that each convolution sees, the newest included."""
    blocks: Count | None = None
    """Number of residual blocks. Absent: the fewest that see the whole window."""
    activation: Activation = "relu"
    """Activation of each convolution."""


class FactorySettings(ModelSettings):
    """The user's own code: a function that takes ``input_shape`` and ``outputs`` and returns a Keras model."""

    kind: Literal["factory"]
    learns_by_itself: ClassVar[bool] = False
    has_end: ClassVar[bool] = True
    factory: Address
    """The function, as `package.module:function`. The module must be on the Python path."""
    arguments: dict[str, Any] = {}
    """Further keyword arguments for the function."""


class LoadSettings(ModelSettings):
    """A model whose architecture comes from the file in `load`, or from a JSON file in `architecture`."""

    kind: Literal["load"]
    learns_by_itself: ClassVar[bool] = False
    has_end: ClassVar[bool] = True
    brings_classes: ClassVar[bool] = True
    load: Path
    """The model: a `.keras`, `.h5` or `.weights.h5` file, a SavedModel folder, the prefix of a `tf.train.Checkpoint`,
    or the `data_dir` or an export of another learnd. Copied into `data_dir` at the first start."""
    architecture: Path | None = None
    """Keras architecture as JSON, as `model.to_json()` writes it. Needed only if the file in `load` holds weights
    without an architecture."""
    signature: str = "serving_default"
    """Signature of the SavedModel to load."""
    output: str | None = None
    """Output of the signature that the model returns. Needed only if the signature has several outputs."""

    @property
    def architecture_file(self) -> Path | None:
        return self.architecture


HiddenLayerSettings: TypeAlias = MlpSettings | AutoencoderSettings | Conv1dSettings | TcnSettings
"""Settings of the models whose hidden layers have an activation to choose."""
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
