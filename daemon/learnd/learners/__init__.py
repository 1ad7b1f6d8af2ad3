"""The compiled updates."""

from learnd.core.settings_base import Component
from learnd.learners.settings import MicroBatchSettings, PerSampleSettings

LEARNERS = {
    "per_sample": Component(PerSampleSettings, "learnd.learners.per_sample:PerSampleLearner"),
    "micro_batch": Component(MicroBatchSettings, "learnd.learners.micro_batch:MicroBatchLearner"),
}
