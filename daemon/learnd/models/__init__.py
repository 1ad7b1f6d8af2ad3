"""Architectures from inputs to outputs: built in, the user's, or loaded; and any of them as bytes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

_SERIALIZED = "learnd.models.stored.serialized"


def to_bytes(model: Any, optimizer: Any = None) -> bytes:
    """A Keras model with its optimizer's state, to be sent anywhere; `model.load` takes a file of them too.

    *optimizer* is built for the model's trainable variables; absent, the one that the model was compiled with.
    """
    data: bytes = load_object(f"{_SERIALIZED}:to_bytes", "")(model, optimizer)
    return data


def from_bytes(data: bytes, *, code: Sequence[str] = (), allow_lambda: Sequence[str] = ()) -> "StoredModel":
    """The inverse: the model, the optimizer's configuration and its state.

    Raises
    ------
    ConfigError
        for bytes that hold no such model, or code that is not allowed.
    """
    stored: StoredModel = load_object(f"{_SERIALIZED}:from_bytes", "")(data, code=code, allow_lambda=allow_lambda)
    return stored
