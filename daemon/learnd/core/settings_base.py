"""What every settings class is, and what a registry holds; light to import, so that ``--help`` stays quick."""

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from learnd.core.errors import ConfigError, Problem


class Section(BaseModel):
    """One section of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Address = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$")]
"""Of Python code: ``package.module`` or ``package.module:object``."""


@dataclass(frozen=True, slots=True)
class Component:
    """A registry entry: the settings, and where the implementation is (imported only once it is wanted)."""

    settings: type[Section]
    implementation: str

    def load(self) -> Any:
        """The class or function behind ``module:name``.

        >>> Component(Section, "math:sqrt").load()(9.0)
        3.0
        """
        module, _, name = self.implementation.partition(":")
        return getattr(import_module(module), name)


def load_object(address: str, key: str) -> Any:
    """The user's own ``package.module:object``, or the module itself where no object is named.

    Raises
    ------
    ConfigError
        if it cannot be imported, with the configuration's *key* that names it.

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


def _public(module: Any) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")][:12]
