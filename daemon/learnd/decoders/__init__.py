"""From bytes to samples, rejects kept apart."""

from learnd.decoders.settings import CsvSettings, Float32Settings, JsonSettings
from learnd.section import Component

DECODERS = {
    "json": Component(JsonSettings, "learnd.decoders.json:JsonDecoder"),
    "csv": Component(CsvSettings, "learnd.decoders.csv:CsvDecoder"),
    "float32": Component(Float32Settings, "learnd.decoders.float32:Float32Decoder"),
}
