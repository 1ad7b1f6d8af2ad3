"""What every settings class is, and what a registry holds; light to import, so that ``--help`` stays quick."""

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """One section of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


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
