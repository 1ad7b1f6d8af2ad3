"""What is predicted from what, and in which units."""

from learnd.core.settings_base import Component
from learnd.tasks.settings import (
    ClassificationSettings,
    ForecastSettings,
    ReconstructionSettings,
    RegressionSettings,
)

TASKS = {
    "regression": Component(RegressionSettings, "learnd.tasks.regression:RegressionNetwork"),
    "classification": Component(ClassificationSettings, "learnd.tasks.classification:ClassificationNetwork"),
    "reconstruction": Component(ReconstructionSettings, "learnd.tasks.reconstruction:ReconstructionNetwork"),
    "forecast": Component(ForecastSettings, "learnd.tasks.forecast:ForecastNetwork"),
}
