"""Registries: from the name of a kind to its settings and its implementation.

The implementation is imported on first use.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from learnd.core.errors import ConfigError, Problem
from learnd.core.settings_base import Section


@dataclass(frozen=True, slots=True)
class Registration:
    """A registry entry: the settings class, and the address of the implementation, ``module:name``."""

    settings: type[Section]
    implementation: str

    def load(self) -> Any:
        """Import and return the implementation: a class or a function.

        >>> Registration(Section, "math:sqrt").load()(9.0)
        3.0
        """
        module, _, name = self.implementation.partition(":")
        return getattr(import_module(module), name)


def load_object(address: str, key: str) -> Any:
    """Import and return the user's ``package.module:object``, or the module if no object is named.

    Raises
    ------
    ConfigError
        if it cannot be imported; the error names *key*, the option that holds the address.

    >>> load_object("math:sqrt", "learning.loss")(9.0)
    3.0
    """
    module_name, _, name = address.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise ConfigError(
            Problem(
                key,
                f"{module_name} cannot be imported ({type(error).__name__}: {error}); install it, or set PYTHONPATH",
            )
        ) from error
    if not name:
        return module
    if not hasattr(module, name):
        raise ConfigError(Problem(key, f"{module_name} has no {name}; it has {', '.join(_public(module))}"))
    return getattr(module, name)


def _public(module: ModuleType) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")][:12]
