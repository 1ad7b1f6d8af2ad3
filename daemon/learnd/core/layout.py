"""The form of text records, as far as their source knows it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextLayout:
    """The columns of delimited text.

    Attributes
    ----------
    columns : column names in order, from a header line; None: the configuration has to name them
    delimiter : the character between two cells
    """

    columns: Sequence[str] | None = None
    delimiter: str = ","
