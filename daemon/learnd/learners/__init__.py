"""The learners, which run compiled updates."""

from learnd.core.registry import Registration
from learnd.learners.settings import AutoSettings, MicroBatchSettings, PerSampleSettings

LEARNERS = {
    "auto": Registration(AutoSettings, "learnd.learners.per_sample:PerSampleLearner"),
    "per_sample": Registration(PerSampleSettings, "learnd.learners.per_sample:PerSampleLearner"),
    "micro_batch": Registration(MicroBatchSettings, "learnd.learners.micro_batch:MicroBatchLearner"),
}
