"""The sources of records.

`memory.MemorySource` is not registered, because it takes a script: it is for tests and notebooks.
"""

from learnd.core.registry import Registration
from learnd.sources.settings import FileSettings, KafkaSettings, SimulatorSettings

SOURCES = {
    "kafka": Registration(KafkaSettings, "learnd.sources.kafka:KafkaSource"),
    "file": Registration(FileSettings, "learnd.sources.file:FileSource"),
    "simulator": Registration(SimulatorSettings, "learnd.sources.simulator:SimulatorSource"),
}
