"""Where records come from. `memory.MemorySource` is for tests and takes a script, so no configuration names it."""

from learnd.core.settings_base import Component
from learnd.sources.settings import FileSettings, KafkaSettings, SimulatorSettings

SOURCES = {
    "kafka": Component(KafkaSettings, "learnd.sources.kafka:KafkaSource"),
    "file": Component(FileSettings, "learnd.sources.file:FileSource"),
    "simulator": Component(SimulatorSettings, "learnd.sources.simulator:SimulatorSource"),
}
