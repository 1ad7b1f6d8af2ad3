"""learnd keeps a Keras model learning from a stream, without losing or repeating a record."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from learnd.api.configuration import from_dict, load, loads
    from learnd.api.exported import ExportedModel, load_export
    from learnd.api.running import ModelState, RunResult, run
    from learnd.config.settings import Settings
    from learnd.core.errors import (
        BrokerUnavailableError,
        ConfigError,
        DataDirLockedError,
        DataLossError,
        ExportDamagedError,
        ExportError,
        LearndError,
        Problem,
        SaveFailedError,
        StateDamagedError,
        UnreadableError,
        UsageError,
    )
    from learnd.core.types import PrequentialScores

__version__ = "0.1.0"

# The public API (daemon/docs/python-api.md). Every other name may change without notice.
__all__ = [
    "BrokerUnavailableError",
    "ConfigError",
    "DataDirLockedError",
    "DataLossError",
    "ExportDamagedError",
    "ExportError",
    "ExportedModel",
    "LearndError",
    "ModelState",
    "PrequentialScores",
    "Problem",
    "RunResult",
    "SaveFailedError",
    "Settings",
    "StateDamagedError",
    "UnreadableError",
    "UsageError",
    "__version__",
    "from_dict",
    "load",
    "load_export",
    "loads",
    "run",
]

_MODULES = {
    "ExportedModel": "learnd.api.exported",
    "ModelState": "learnd.api.running",
    "PrequentialScores": "learnd.core.types",
    "RunResult": "learnd.api.running",
    "Settings": "learnd.config.settings",
    "from_dict": "learnd.api.configuration",
    "load": "learnd.api.configuration",
    "load_export": "learnd.api.exported",
    "loads": "learnd.api.configuration",
    "run": "learnd.api.running",
}
"""The module of each public name; the others are errors."""

if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> object:
        """Return a public name, and import its module only now: every command imports this package."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES.get(name, "learnd.core.errors")), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
