"""From bytes to samples, rejects kept apart."""

from learnd.core.settings_base import Component
from learnd.decoders.settings import CsvSettings, Float32Settings, JsonSettings

DECODERS = {
    "json": Component(JsonSettings, "learnd.decoders.json:JsonDecoder"),
    "csv": Component(CsvSettings, "learnd.decoders.csv:CsvDecoder"),
    "float32": Component(Float32Settings, "learnd.decoders.float32:Float32Decoder"),
}
