"""Delimited text: one line to cells, the same for the header and for the data."""

import csv
import re
from collections.abc import Callable

WHITESPACE = "whitespace"
"""The delimiter that stands for any number of spaces and tabs."""
_CANDIDATES = (";", "\t", "|")
Splitter = Callable[[str], list[str]]


def splitter(delimiter: str) -> Splitter:
    """Return a function from a line to its cells. It raises `ValueError` if a quote is not closed.

    Spaces around a quoted cell are ignored; a doubled quote inside quotes stands for one.

    >>> splitter(";")('1; "a;b" ;c'), splitter("whitespace")("  1   2 ")
    (['1', 'a;b', 'c'], ['1', '2'])
    """
    split: Splitter = str.split if delimiter == WHITESPACE else lambda line: line.split(delimiter)

    def cells(line: str) -> list[str]:
        return split_quoted(line, delimiter) if '"' in line else split(line)

    return cells


def split_quoted(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line that has quotes.

    >>> split_quoted('"a b", 5" ,  "c,d"  ', ",")
    ['a b', ' 5" ', 'c,d']

    Raises
    ------
    ValueError
        if a quote is not closed, or if more text follows a closed one.
    """
    try:
        if delimiter not in (" ", WHITESPACE):
            return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration):
        pass  # spaces behind a closing quote, which the module does not know
    end = r"\s+" if delimiter == WHITESPACE else re.escape(delimiter)
    blank = r"\s*" if delimiter == WHITESPACE else " *"
    quoted = re.compile(rf'{blank}"((?:[^"]|"")*)"{blank}(?={end}|$)')
    plain = re.compile(rf"(.*?)(?={end}|$)")
    line = line.strip() if delimiter == WHITESPACE else line
    cells, place = [], 0
    while True:
        if match := quoted.match(line, place):
            cells.append(match[1].replace('""', '"'))
        elif (match := plain.match(line, place)) and not match[1].lstrip().startswith('"'):
            cells.append(match[1])
        else:
            raise ValueError(
                f"the quote of cell {len(cells) + 1} is not closed, or text follows it; a cell cannot hold a line break"
            )
        gap = re.compile(end).match(line, match.end())
        if gap is None:
            return cells
        place = gap.end()


def found_delimiter(line: str) -> str:
    """Return the delimiter of a line: a comma, unless the line has none and has another one.

    >>> found_delimiter("ts;temp;power"), found_delimiter("ts,temp;c"), found_delimiter("temp")
    (';', ',', ',')
    """
    return next((found for found in _CANDIDATES if found in line), ",") if "," not in line else ","


def other_delimiters(line: str, delimiter: str) -> dict[str, list[str]]:
    """Return the cells of *line* by other delimiters than *delimiter*, where there is more than one cell.

    >>> other_delimiters("a;b c", ",")
    {';': ['a', 'b c'], 'whitespace': ['a;b', 'c']}
    """
    found = {}
    for other in (",", *_CANDIDATES, WHITESPACE):
        try:
            cells = splitter(other)(line)
        except ValueError:
            continue
        if other != delimiter and len(cells) > 1:
            found[other] = [cell.strip() for cell in cells]
    return found
