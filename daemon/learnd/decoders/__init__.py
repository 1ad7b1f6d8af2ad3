"""Decoders: from the bytes of records to samples and rejects."""

from learnd.core.registry import Registration
from learnd.decoders.settings import CsvSettings, Float32Settings, JsonSettings

DECODERS = {
    "json": Registration(JsonSettings, "learnd.decoders.json:JsonDecoder"),
    "csv": Registration(CsvSettings, "learnd.decoders.csv:CsvDecoder"),
    "float32": Registration(Float32Settings, "learnd.decoders.float32:Float32Decoder"),
}
