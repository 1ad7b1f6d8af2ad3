"""Base class and common types of all settings. Quick to import, so that ``--help`` stays quick."""

import codecs
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def kinds_of(union: object, key: str = "kind") -> dict[str, "type[Section]"]:
    """Return the classes of an annotated *union* of settings by the value of their *key*."""
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields[key].annotation)[0]: member for member in members}


class Section(BaseModel):
    """One section of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Address = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$")]
"""Address of Python code: ``package.module`` or ``package.module:object``."""


def _known_encoding(name: str) -> str:
    try:
        if codecs.lookup(name)._is_text_encoding:  # rot13, hex and others are none
            return name
    except LookupError:
        pass
    raise ValueError(f"{name!r} is no encoding of text; examples are cp1252, latin-1, utf-16 and utf-16-le")


Encoding = Annotated[str, AfterValidator(_known_encoding)]
"""Name of a text encoding that Python knows."""
Delimiter = Annotated[str, Field(min_length=1, max_length=1)] | Literal["whitespace"]
"""The character between two cells, or any number of spaces and tabs (`learnd.core.delimited.WHITESPACE`)."""
