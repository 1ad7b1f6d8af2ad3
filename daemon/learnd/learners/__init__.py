"""The compiled updates."""

from learnd.learners.settings import MicroBatchSettings, PerSampleSettings
from learnd.section import Component

LEARNERS = {
    "per_sample": Component(PerSampleSettings, "learnd.learners.per_sample:PerSampleLearner"),
    "micro_batch": Component(MicroBatchSettings, "learnd.learners.micro_batch:MicroBatchLearner"),
}
