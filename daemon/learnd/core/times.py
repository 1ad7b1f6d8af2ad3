"""Times as records hold them: ISO 8601, a pattern, or a number. Quick to import: no NumPy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal
from zoneinfo import ZoneInfo

UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
EXCEL = "excel"
"""The `time_format` of serial dates: days since 1899-12-30, as spreadsheets count them."""
# The years 1 to 9999. A time outside them is probably a number in another unit than the configured one.
FIRST_S, LAST_S = -62_135_596_800.0, 253_402_300_799.0
EPOCH_FIRST_S, EPOCH_LAST_S = 315_532_800.0, 4_102_444_800.0
"""The years 1980 to 2099: a number outside of them is no epoch time of a sensor."""
_EXCEL_ORIGIN = datetime(1899, 12, 30)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
_DIGITS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_DATES: tuple[str, ...] = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d.%m.%y",
    "%d/%m/%y",
)
_DATES += (
    "%m/%d/%y",
    "%y-%m-%d",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%b %d %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%d/%b/%Y",
    "%Y%m%d",
)
_CLOCKS: tuple[str, ...] = (
    "%H:%M:%S",
    "%H:%M",
    "%H:%M:%S.%f",
    "%H:%M:%S,%f",
    "%I:%M:%S %p",
    "%I:%M %p",
    "%H.%M.%S",
    "%H.%M",
    "%H%M%S",
)
_CLOCKS += ("%I:%M:%S%p", "%I:%M%p")
_CODES = {
    "%Y": r"\d{4}",
    "%y": r"\d\d",
    "%m": r"(?:1[0-2]|0?[1-9])",
    "%d": r"(?:3[01]|[12]\d|0?[1-9])",
    "%H": r"(?:2[0-3]|[01]?\d)",
    "%I": r"(?:1[0-2]|0?[1-9])",
    "%M": r"[0-5]?\d",
    "%S": r"[0-5]?\d",
    "%f": r"\d{1,6}",
    "%p": r"[ap]m",
    "%b": r"[a-z]{3}",
    "%B": r"[a-z]{3,9}",
    "%z": r"(?:z|[+-]\d\d:?\d\d)",
    " ": r"\s+",
}
"""The regular expression of each code of the patterns."""
_ZONES = ("", " UTC", " %z", "%z")
_SHOWN = 64


@dataclass(frozen=True, slots=True)
class TimeReader:
    """The configured way to read a time.

    Attributes
    ----------
    unit : unit of a number
    formats : patterns of `datetime.strptime`, tried in this order, or `EXCEL`; empty: ISO 8601 or a number
    zone : name of the zone of times without one; None: UTC
    ambiguous : which of two moments a time means that the clocks of *zone* showed twice
    first_s, last_s : range of a number, in seconds since 1970
    """

    unit: str = "s"
    formats: tuple[str, ...] = ()
    zone: str | None = None
    ambiguous: Literal["reject", "first", "second"] = "reject"
    first_s: float = FIRST_S
    last_s: float = LAST_S
    _zone: ZoneInfo | None = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_zone", None if self.zone is None else ZoneInfo(self.zone))

    def seconds(self, value: float | str) -> float:
        """Return the seconds since 1970 UTC.

        >>> TimeReader().seconds("2013-12-02 21:15:00"), TimeReader("ms").seconds("1386018900000")
        (1386018900.0, 1386018900.0)
        >>> TimeReader(formats=("%d.%m.%Y %H:%M",), zone="Europe/Berlin").seconds("02.12.2013 22:15")
        1386018900.0

        Raises
        ------
        ValueError
            if *value* is no such time. The message names the value and the option that would read it.
        """
        if self.formats:
            return self._by_format(value)
        if isinstance(value, str):
            text = value.strip()
            if not _NUMBER.fullmatch(text):
                return self._by_iso(text)
            value = float(text)
        try:
            seconds = float(value) * UNITS_S[self.unit]
        except (OverflowError, TypeError):
            seconds = float("nan")
        if self.first_s <= seconds <= self.last_s:
            return seconds
        raise ValueError(self._no_epoch(value))

    def _by_iso(self, text: str) -> float:
        try:
            return self._moment_s(datetime.fromisoformat(text), text)
        except (ValueError, OverflowError) as error:
            if isinstance(error, _ClockError):
                raise
        raise ValueError(f"{text[:_SHOWN]!r} is neither ISO 8601 nor a number{_pattern_hint(text[:_SHOWN])}")

    def _by_format(self, value: float | str) -> float:
        text = value.strip() if isinstance(value, str) else f"{value:.15g}"
        for pattern in self.formats:
            try:
                moment = _of_excel(float(text)) if pattern == EXCEL else datetime.strptime(text, pattern)
                return self._moment_s(moment, text)
            except (ValueError, OverflowError) as error:
                if isinstance(error, _ClockError):
                    raise
        patterns = " or ".join(map(repr, self.formats))
        raise ValueError(f"{text[:_SHOWN]!r} does not fit decode.time_format {patterns}{_pattern_hint(text[:_SHOWN])}")

    def _moment_s(self, moment: datetime, text: str) -> float:
        """Return the seconds of a moment; without a zone it is in the configured one."""
        if moment.tzinfo is not None:
            seconds = moment.timestamp()
        elif self._zone is None:
            seconds = moment.replace(tzinfo=UTC).timestamp()
        else:
            seconds = self._in_zone(moment, text)
        if not FIRST_S <= seconds <= LAST_S:
            raise ValueError(text)
        return seconds

    def _in_zone(self, moment: datetime, text: str) -> float:
        first = moment.replace(tzinfo=self._zone, fold=0)
        second = moment.replace(tzinfo=self._zone, fold=1)
        before, after = first.utcoffset(), second.utcoffset()
        if before == after:
            return first.timestamp()
        assert before is not None and after is not None
        if before < after:
            raise _ClockError(
                f"{text[:_SHOWN]!r} does not exist in {self.zone}, whose clocks skip that hour; if the sensor keeps "
                "one time all year, set decode.time_zone to a zone without summer time, such as Etc/GMT-1"
            )
        if self.ambiguous == "reject":
            raise _ClockError(
                f"{text[:_SHOWN]!r} exists twice in {self.zone}, whose clocks were set back; set decode.ambiguous_time "
                "to first or second, or write times with an offset"
            )
        return (first if self.ambiguous == "first" else second).timestamp()

    def _no_epoch(self, value: float | str) -> str:
        hints: list[str] = []
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        for unit, factor in UNITS_S.items():
            if unit != self.unit and EPOCH_FIRST_S <= number * factor <= EPOCH_LAST_S:
                day = datetime.fromtimestamp(number * factor, UTC).date()
                hints.append(f"if it is {day}, set decode.time_unit: {unit}")
        if (pattern := _DIGITS.get(len(f"{number:.0f}"))) and number.is_integer():
            seconds = _parsed(f"{number:.0f}", pattern)
            if seconds is not None and EPOCH_FIRST_S <= seconds <= EPOCH_LAST_S:
                hints.append(f'if it is a date, set decode.time_format: "{pattern}"')
        if 20_000 <= number < 80_000:
            hints.append(f"if it is the spreadsheet date {_of_excel(number).date()}, set decode.time_format: excel")
        if self.first_s != FIRST_S:
            hints.append("for a count, such as seconds since a start, set decode.time_numbers: any")
        years = "1980 to 2099" if self.first_s != FIRST_S else "1 to 9999"
        shown = f"{number:.0f}" if number.is_integer() and abs(number) < 1e21 else str(value)
        return f"{shown[:_SHOWN]} {self.unit} since 1970 is not within the years {years}" + "".join(
            f"; {hint}" for hint in hints
        )


class _ClockError(ValueError):
    """A time that the clocks of the zone showed twice, or never."""


def _of_excel(days: float) -> datetime:
    """Return the moment of a serial date, to the millisecond; refuse what no sensor can have recorded."""
    moment = _EXCEL_ORIGIN + timedelta(milliseconds=round(days * 86_400_000))
    if not 1980 <= moment.year < 2100:
        raise ValueError(days)
    return moment


def _parsed(text: str, pattern: str) -> float | None:
    try:
        return datetime.strptime(text, pattern).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _pattern_hint(text: str) -> str:
    """Return a hint that names the patterns that fit *text*.

    >>> _pattern_hint("15.01.2024 12:00:00")
    '; set decode.time_format: "%d.%m.%Y %H:%M:%S"'
    """
    patterns = fitting_patterns(text)
    if not patterns:
        return "; set decode.time_format to its pattern (https://docs.python.org/3/library/datetime.html#format-codes)"
    return "; set decode.time_format: " + " or ".join(f'"{pattern}"' for pattern in patterns[:2])


def fitting_patterns(text: str) -> Sequence[str]:
    """Return the common patterns that read *text*.

    >>> fitting_patterns("01/02/2024 12:00")
    ('%d/%m/%Y %H:%M', '%m/%d/%Y %H:%M')
    """
    text = text.strip()
    if len(text) > _SHOWN or not text.isascii():
        return ()
    dates = [date for date in _DATES if _marks(date) <= set(text) and _expression(date).match(text)]
    clocks = [clock for clock in _CLOCKS if _marks(clock) <= set(text)]
    found = []
    for date in dates:
        for clock in ("", *clocks):
            for between in (" ", "T", ", ", "") if clock else ("",):
                for zone in _ZONES:
                    pattern = f"{date}{between}{clock}{zone}"
                    # `strptime` compiles a pattern at its first use, which takes as long as a thousand records.
                    if _expression(pattern).fullmatch(text) and _parsed(text, pattern) is not None:
                        found.append(pattern)
    return tuple(dict.fromkeys(found))


@cache
def _marks(pattern: str) -> frozenset[str]:
    """Return the characters of a pattern that stand for themselves."""
    return frozenset(re.sub(r"%\w", "", pattern)) - {" "}


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    """Return a regular expression that fits at least what *pattern* fits."""
    parts = (_CODES.get(part) or re.escape(part) for part in re.findall(r"%\w|.", pattern))
    return re.compile("".join(parts), re.IGNORECASE)


def problem_of(pattern: str) -> str | None:
    """Return what is wrong with a pattern; None if nothing is.

    >>> problem_of("%d.%m.%Y"), problem_of("excel"), problem_of("%H:%M")
    (None, None, "'%H:%M' does not hold a whole date: name year, month and day")
    """
    if pattern == EXCEL:
        return None
    if pattern in UNITS_S:
        return f"{pattern!r} is no pattern; for a number, set decode.time_unit: {pattern}"
    moments = [datetime(2024, 1, 15, tzinfo=UTC), datetime(2023, 1, 15, tzinfo=UTC), datetime(2024, 2, 15, tzinfo=UTC)]
    moments.append(datetime(2024, 1, 16, tzinfo=UTC))
    try:
        texts = [moment.strftime(pattern) for moment in moments]
        for text, moment in zip(texts, moments, strict=True):
            if datetime.strptime(text, pattern).date() != moment.date():
                return f"{pattern!r} does not hold a whole date: name year, month and day"
    except (ValueError, re.error) as error:
        return f"{pattern!r} is no pattern of strptime ({error}); an example is %d.%m.%Y %H:%M:%S"
    return None
