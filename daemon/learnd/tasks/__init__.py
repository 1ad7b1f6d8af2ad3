"""What is predicted from what, and in which units."""

from learnd.section import Component
from learnd.tasks.settings import ForecastSettings, ReconstructionSettings, RegressionSettings

TASKS = {
    "regression": Component(RegressionSettings, "learnd.tasks.regression:RegressionNetwork"),
    "reconstruction": Component(ReconstructionSettings, "learnd.tasks.reconstruction:ReconstructionNetwork"),
    "forecast": Component(ForecastSettings, "learnd.tasks.forecast:ForecastNetwork"),
}
