"""Writers and readers of the published formats; `learnd.export_worker` verifies what they write."""

from learnd.core.registry import Registration
from learnd.export.settings import ExportSettings

EXPORTERS = {
    "saved_model": Registration(ExportSettings, "learnd.export.formats.saved_model:SavedModelFormat"),
    "tflite": Registration(ExportSettings, "learnd.export.formats.tflite:TFLiteFormat"),
    "tflite_float16": Registration(ExportSettings, "learnd.export.formats.tflite_float16:Float16Format"),
    "tflite_dynamic": Registration(ExportSettings, "learnd.export.formats.tflite:DynamicRangeFormat"),
    "tflite_int8": Registration(ExportSettings, "learnd.export.formats.tflite_int8:Int8Format"),
    "tflite_training": Registration(ExportSettings, "learnd.export.formats.tflite_training:TrainingFormat"),
    "keras": Registration(ExportSettings, "learnd.export.formats.keras_file:KerasFormat"),
    "hdf5": Registration(ExportSettings, "learnd.export.formats.keras_file:Hdf5Format"),
    "onnx": Registration(ExportSettings, "learnd.export.formats.onnx:OnnxFormat"),
}

READERS = {
    "saved_model": "learnd.export.formats.saved_model:SavedModelReader",
    "tflite": "learnd.export.formats.litert:TFLiteReader",
    "tflite_float16": "learnd.export.formats.litert:TFLiteReader",
    "tflite_dynamic": "learnd.export.formats.litert:TFLiteReader",
    "tflite_int8": "learnd.export.formats.litert:TFLiteReader",
    "tflite_training": "learnd.export.formats.litert:TFLiteReader",
    "keras": "learnd.export.formats.keras_file:KerasReader",
    "onnx": "learnd.export.formats.onnx:OnnxReader",
}
"""Readers of the formats whose file alone is enough to predict; ``hdf5`` holds only weights."""
