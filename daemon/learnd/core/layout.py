"""Layout of text records, as far as the source knows it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextLayout:
    """The columns of delimited text.

    Attributes
    ----------
    columns : column names in order, from a header line; None: the configuration must name them
    delimiter : the character between two cells
    """

    columns: Sequence[str] | None = None
    delimiter: str = ","
