"""Numbers as people write them: decimal commas, thousands separators. Quick to import: no NumPy."""

import re
from collections.abc import Callable

EXAMPLES = ("1234.56", "1,234.56", "1 234.56", "1'234.56", "1234,56", "1.234,56", "1 234,56", "1'234,56")
"""One number in each way to write it that is known."""
_ALIKE = {" ": "\u0020\u00a0\u2009\u202f", "'": "'\u2019"}
"""Separators that stand for each other: all kinds of narrow and unbreakable spaces, and both apostrophes."""
ParseNumber = Callable[[str], float]


def plain_number(text: str) -> float:
    """Return *text* as a number; refuse digits with underscores (``1_0``), which only Python accepts.

    >>> plain_number(" 1.5e3 ")
    1500.0
    """
    if "_" in text:
        raise ValueError(text)
    return float(text)


def number_parser(example: str | None) -> ParseNumber:
    """Return a function from a text to its number, written as *example*, one of `EXAMPLES`; None: as in Python.

    It is strict, because a wrong guess is a wrong number: a thousands separator must stand before exactly three
    digits, and the first group does not begin with 0. A text that does not fit raises `ValueError`.

    >>> parse = number_parser("1.234,56")
    >>> parse("1.234,5"), parse("24,082"), parse("-1,5E3"), parse("1.234.567")
    (1234.5, 24.082, -1500.0, 1234567.0)
    """
    if example in (None, EXAMPLES[0]):
        return plain_number
    thousands, decimal = example[1:-6], example[-3]
    groups = _ALIKE.get(thousands, re.escape(thousands))
    whole = rf"(?:[1-9]\d{{0,2}}(?:[{groups}]\d{{3}})+|\d+)" if thousands else r"\d+"
    number = re.compile(
        rf"([+-]?)({whole}(?:{re.escape(decimal)}\d*)?|{re.escape(decimal)}\d+)([eE][+-]?\d+)?", re.ASCII
    )
    drop = str.maketrans(dict.fromkeys(_ALIKE.get(thousands, thousands)) | {decimal: "."})

    def parse(text: str) -> float:
        match = number.fullmatch(text.strip().replace("\u2212", "-"))
        if match is None:
            if text.strip().lstrip("+-").lower() in ("nan", "inf", "infinity"):
                return float(text)
            raise ValueError(text)
        return float(match[1] + match[2].translate(drop) + (match[3] or ""))

    return parse


def fitting_examples(text: str) -> list[str]:
    """Return those of `EXAMPLES` by which *text* is a number, without those that say the same of it.

    >>> fitting_examples("24,5"), fitting_examples("1.234,5"), fitting_examples("24,082"), fitting_examples("n/a")
    (['1234,56'], ['1.234,56'], ['1,234.56', '1234,56'], [])
    """
    found: dict[float, str] = {}
    for example in EXAMPLES:
        try:
            number = number_parser(example)(text)
        except ValueError:
            continue
        found.setdefault(number, example)
    return list(found.values())
