"""Writers of the published formats; `publish` verifies and renames."""

from learnd.exporters.settings import ExportSettings
from learnd.section import Component

EXPORTERS = {
    "saved_model": Component(ExportSettings, "learnd.exporters.saved_model:SavedModelFormat"),
    "tflite": Component(ExportSettings, "learnd.exporters.tflite:TFLiteFormat"),
}
