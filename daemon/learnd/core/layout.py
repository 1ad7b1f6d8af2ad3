"""Layout of text records, as far as the source knows it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextLayout:
    """The columns of delimited text.

    Attributes
    ----------
    columns : column names in order, from a header line; None: the configuration must name them
    delimiter : the character between two cells, or `learnd.core.delimited.WHITESPACE`
    header : the header line that *columns* come from, for a decoder with a delimiter of its own
    place : the file and the line of the header, for messages
    """

    columns: Sequence[str] | None = None
    delimiter: str = ","
    header: str | None = None
    place: str = ""
