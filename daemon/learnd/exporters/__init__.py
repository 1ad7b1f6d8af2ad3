"""Writers of the published formats; `publish` verifies and renames."""

from learnd.exporters.settings import ExportSettings
from learnd.section import Component

EXPORTERS = {
    "saved_model": Component(ExportSettings, "learnd.exporters.saved_model:SavedModelFormat"),
    "tflite": Component(ExportSettings, "learnd.exporters.tflite:TFLiteFormat"),
    "tflite_float16": Component(ExportSettings, "learnd.exporters.tflite_float16:Float16Format"),
    "tflite_dynamic": Component(ExportSettings, "learnd.exporters.tflite:DynamicRangeFormat"),
    "tflite_int8": Component(ExportSettings, "learnd.exporters.tflite_int8:Int8Format"),
    "tflite_training": Component(ExportSettings, "learnd.exporters.tflite_training:TrainingFormat"),
    "keras": Component(ExportSettings, "learnd.exporters.keras_file:KerasFormat"),
    "hdf5": Component(ExportSettings, "learnd.exporters.keras_file:Hdf5Format"),
    "onnx": Component(ExportSettings, "learnd.exporters.onnx:OnnxFormat"),
}

READERS = {
    "saved_model": "learnd.exporters.saved_model:SavedModelReader",
    "tflite": "learnd.exporters.litert:TFLiteReader",
    "tflite_float16": "learnd.exporters.litert:TFLiteReader",
    "tflite_dynamic": "learnd.exporters.litert:TFLiteReader",
    "tflite_int8": "learnd.exporters.litert:TFLiteReader",
    "tflite_training": "learnd.exporters.litert:TFLiteReader",
    "keras": "learnd.exporters.keras_file:KerasReader",
    "onnx": "learnd.exporters.onnx:OnnxReader",
}
"""What runs a file of each format that can be run by itself, without what wrote it."""
