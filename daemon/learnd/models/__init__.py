"""Model architectures: built in, the user's own, or loaded; and conversion of any Keras model to bytes and back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from learnd.core.registry import Registration, load_object
from learnd.models.settings import (
    AutoencoderSettings,
    Conv1dSettings,
    GruSettings,
    LinearSettings,
    LstmSettings,
    MlpSettings,
    TcnSettings,
)

if TYPE_CHECKING:
    from learnd.core.tensors import KerasModel, Optimizer
    from learnd.models.stored.model import StoredModel

MODELS = {
    "linear": Registration(LinearSettings, "learnd.models.linear:linear"),
    "mlp": Registration(MlpSettings, "learnd.models.mlp:mlp"),
    "autoencoder": Registration(AutoencoderSettings, "learnd.models.autoencoder:autoencoder"),
    "lstm": Registration(LstmSettings, "learnd.models.recurrent:lstm"),
    "gru": Registration(GruSettings, "learnd.models.recurrent:gru"),
    "conv1d": Registration(Conv1dSettings, "learnd.models.conv1d:conv1d"),
    "tcn": Registration(TcnSettings, "learnd.models.tcn:tcn"),
}
"""Built-in models by the value of ``model.kind``."""

_SERIALIZED = "learnd.models.stored.serialized"


def to_bytes(model: "KerasModel", optimizer: "Optimizer | None" = None) -> bytes:
    """Return *model* and the state of its optimizer as bytes. A file of these bytes can be loaded by `model.load`.

    *optimizer* must be built for the model's trainable variables. None: the optimizer that the model was compiled with.
    """
    data: bytes = load_object(f"{_SERIALIZED}:to_bytes", "")(model, optimizer)
    return data


def from_bytes(data: bytes, *, code: Sequence[str] = (), allow_lambda: Sequence[str] = ()) -> "StoredModel":
    """Return the model, the optimizer's configuration and the optimizer's state from bytes that `to_bytes` made.

    *code* and *allow_lambda* mean what the options of the same name in `learnd.models.settings.ModelSettings` mean.

    Raises
    ------
    ConfigError
        if the bytes hold no such model, or if they hold code that is not allowed.
    """
    stored: StoredModel = load_object(f"{_SERIALIZED}:from_bytes", "")(data, code=code, allow_lambda=allow_lambda)
    return stored
