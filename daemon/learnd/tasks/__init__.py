"""The tasks: what is predicted from which inputs, in which units."""

from learnd.core.registry import Registration
from learnd.tasks.settings import (
    ClassificationSettings,
    ForecastSettings,
    MultilabelSettings,
    ReconstructionSettings,
    RegressionSettings,
)

TASKS = {
    "regression": Registration(RegressionSettings, "learnd.tasks.regression:RegressionNetwork"),
    "classification": Registration(ClassificationSettings, "learnd.tasks.classification:ClassificationNetwork"),
    "multilabel": Registration(MultilabelSettings, "learnd.tasks.multilabel:MultilabelNetwork"),
    "reconstruction": Registration(ReconstructionSettings, "learnd.tasks.reconstruction:ReconstructionNetwork"),
    "forecast": Registration(ForecastSettings, "learnd.tasks.forecast:ForecastNetwork"),
}
