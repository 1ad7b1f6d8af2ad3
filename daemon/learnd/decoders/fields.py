"""The configured fields of a record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from learnd.core.arrays import array_of
from learnd.core.numbers import plain_number
from learnd.core.protocols import FeatureOptions
from learnd.core.seasons import Season, season
from learnd.core.times import TimeReader
from learnd.decoders.settings import MISSING_VALUES, DecoderSettings

_MAX_WEIGHT = 1e6
"""Maximum weight of a sample. 3e38, though finite, is infinite after multiplication by a gradient, and would turn
every weight of the model into nan."""
_SHOWN = 64
"""Maximum number of characters of a value in a message."""


@dataclass(frozen=True, slots=True)
class Field:
    """One number of a record, with its limits."""

    name: str
    min: float | None = None
    max: float | None = None
    missing: float | None = None
    """The number for an empty cell or a null; nan: it stays missing, and the model takes it for the mean; None: reject
    the record."""
    may_be_absent: bool = True
    """True: a record that lacks the field is treated like one with a null."""
    secret: bool = False
    """True: its values are in no log and in no message."""

    @property
    def has_gaps(self) -> bool:
        """True if a missing value stays missing."""
        return self.missing is not None and math.isnan(self.missing)

    def shown(self, value: object) -> str:
        """Return *value* for a message: cut, or nothing of it if the field is secret.

        >>> Field("a").shown("x" * 99)[-9:], Field("pin", secret=True).shown(1234)
        ("xxxxx'...", '(secret)')
        """
        if self.secret:
            return "(secret)"
        text = f"{value:g}" if isinstance(value, float) else repr(value[:_SHOWN] if isinstance(value, str) else value)
        cut = isinstance(value, str) and len(value) > _SHOWN
        return f"{text}..." if cut else text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}..."


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields to read from a record: features, targets, weight, time, key and label."""

    features: tuple[Field, ...]
    targets: tuple[Field, ...]
    time: str | None
    time_unit: str
    key: str | None
    max_bytes: int
    weight: Field | None = None
    """The weight of the sample."""
    stop: Field | None = None
    """The flag of a planned stop: a boolean or a number. A record without it is not in one."""
    label: str | None = None
    """The name of the field with the class."""
    labels: frozenset[str] | None = None
    """The allowed classes; None: any text."""
    max_ahead_s: float | None = None
    """Maximum lead of the event time over the record's own time, in seconds; None: no limit."""
    seasons: tuple[Season, ...] = ()
    """The seasonal inputs, which are made from times."""
    upstream: tuple[Field, ...] = ()
    """Forecasts of the target that were made upstream."""
    targets_optional: bool = False
    """True: a record without its target becomes a sample without one, instead of a reject."""
    missing_words: frozenset[str] = frozenset(MISSING_VALUES)
    """The texts that stand for a missing value, in lower case."""
    missing_numbers: tuple[float, ...] = ()
    """The numbers that stand for a missing value."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """The places of fields inside nested records."""
    time_of_day: str | None = None
    """The field with the time of day, if `time` is only the date."""
    arrays: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The shapes of arrays by the names of their fields. Their elements are features: ``image[0]`` and so on."""
    times: TimeReader | None = None
    """The way to read a time; None: ISO 8601, or a number in `time_unit`."""

    @property
    def time_reader(self) -> TimeReader:
        """The way to read a time."""
        return self.times or TimeReader(self.time_unit)

    def is_missing(self, text: str) -> bool:
        """Return whether a text stands for a missing value."""
        bare = text.strip().lower()
        return not bare or bare in self.missing_words

    @property
    def numbers(self) -> tuple[Field, ...]:
        """The numbers of a record, in the order of the columns of `Rows.numbers`."""
        others = tuple(field for field in (self.weight, self.stop) if field is not None)
        return self.features + self.targets + others + self.upstream

    @property
    def stop_column(self) -> int:
        """The column of `stop` in `Rows.numbers`."""
        return len(self.features) + len(self.targets) + (self.weight is not None)

    @property
    def clocks(self) -> tuple[str, ...]:
        """The fields with the times of seasonal inputs, in the order of the columns of `Rows.clocks`."""
        return tuple(dict.fromkeys(season.time for season in self.seasons if season.time is not None))

    @property
    def names(self) -> list[str]:
        """The names of all fields of a record's value."""
        others = (self.time, self.time_of_day, self.key, self.label, *self.clocks)
        return [
            *(field.name for field in self.numbers),
            *(name for name in others if name is not None and not name.startswith("__")),
        ]


def _feature(name: str, options: FeatureOptions, *, fills_gaps: bool) -> Field:
    """Return the field of a feature. Its range is checked here only if no rule replaces readings outside it."""
    missing: float | None = None
    if options.missing == "mean" or (options.missing is None and fills_gaps):
        missing = math.nan
    elif isinstance(options.missing, float):
        missing = options.missing
    may_be_absent = options.missing not in (None, "reject")
    if options.on_fault == "reject":
        return Field(name, options.min, options.max, missing, may_be_absent, options.secret)
    return Field(name, missing=missing, may_be_absent=may_be_absent, secret=options.secret)


def _numbers_among(words: Sequence[str]) -> tuple[float, ...]:
    """Return the finite numbers among the texts that stand for a missing value.

    >>> _numbers_among(["NULL", "-999", "nan"])
    (-999.0,)
    """
    numbers = []
    for word in words:
        try:
            number = plain_number(word)
        except ValueError:
            continue
        if math.isfinite(number):
            numbers.append(number)
    return tuple(numbers)


def long_fields(fields: Fields, name: str, value: str) -> Fields:
    """Return the fields of a record with one value: the value as the only feature, its name as the label."""
    return replace(
        fields,
        features=(Field(value, secret=any(field.secret for field in fields.features)),),
        targets=(),
        label=name,
        labels=None,
        targets_optional=False,
    )


def _paths_of(readings: Mapping[str, FeatureOptions]) -> dict[str, str]:
    """Return the places of features inside nested records; of an array, that of the whole."""
    array = array_of(readings) if readings else None
    named = {array[0]: next(iter(readings.values()))} if array is not None else readings
    return {name: options.path for name, options in named.items() if options.path}


def fields_from(
    features: Mapping[str, FeatureOptions],
    targets: Sequence[str],
    settings: DecoderSettings,
    *,
    weight: str | None = None,
    stop: str | None = None,
    classes: Sequence[str] | None = None,
    classify: bool = False,
    fills_gaps: bool = False,
    upstream: Sequence[str] = (),
    target_limits: tuple[float, float] | None = None,
) -> Fields:
    """Return the configured fields. With *classify*, the only target is a class, one of *classes*.

    *target_limits* are the smallest and the largest value of a target; None: any.

    With *fills_gaps*, the model takes a missing feature for its mean, unless its options say otherwise.
    """
    readings = {name: options for name, options in features.items() if options.period_s is None}
    return Fields(
        tuple(_feature(name, options, fills_gaps=fills_gaps) for name, options in readings.items()),
        () if classify else tuple(Field(name, *(target_limits or ())) for name in targets),
        settings.time,
        settings.time_unit,
        settings.key,
        settings.max_bytes,
        Field(weight, min=0.0, max=_MAX_WEIGHT) if weight is not None else None,
        Field(stop, missing=0.0) if stop is not None else None,
        targets[0] if classify else None,
        frozenset(classes) if classify and classes is not None else None,
        settings.max_ahead_s,
        tuple(
            season(name, options.period_s, options.time)
            for name, options in features.items()
            if options.period_s is not None
        ),
        tuple(Field(name, missing=math.nan) for name in upstream),
        settings.missing_target == "predict",
        frozenset(word.strip().lower() for word in settings.missing_values),
        _numbers_among(settings.missing_values),
        {**_paths_of(readings), **settings.paths_of_fields},
        settings.time_of_day,
        dict([array] if (array := array_of(readings)) is not None else []),
        settings.time_reader(),
    )
