"""Built-in architectures: from standardised inputs to standardised outputs."""

from learnd.models.settings import (
    AutoencoderSettings,
    Conv1dSettings,
    GruSettings,
    LinearSettings,
    LstmSettings,
    MlpSettings,
)
from learnd.section import Component

MODELS = {
    "linear": Component(LinearSettings, "learnd.models.linear:linear"),
    "mlp": Component(MlpSettings, "learnd.models.mlp:mlp"),
    "autoencoder": Component(AutoencoderSettings, "learnd.models.autoencoder:autoencoder"),
    "lstm": Component(LstmSettings, "learnd.models.recurrent:lstm"),
    "gru": Component(GruSettings, "learnd.models.recurrent:gru"),
    "conv1d": Component(Conv1dSettings, "learnd.models.conv1d:conv1d"),
}
