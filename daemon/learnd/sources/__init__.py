"""Where records come from. `memory.MemorySource` is for tests and takes a script, so no configuration names it."""

from learnd.core.registry import Registration
from learnd.sources.settings import FileSettings, KafkaSettings, SimulatorSettings

SOURCES = {
    "kafka": Registration(KafkaSettings, "learnd.sources.kafka:KafkaSource"),
    "file": Registration(FileSettings, "learnd.sources.file:FileSource"),
    "simulator": Registration(SimulatorSettings, "learnd.sources.simulator:SimulatorSource"),
}
