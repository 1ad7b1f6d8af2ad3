"""The wiring of the parts that records pass before they are learned: source, decoder, transforms."""

from learnd.config.settings import Settings
from learnd.core.layout import TextLayout
from learnd.core.protocols import Decoder, Source, Transform
from learnd.core.types import KEY_SLOTS, Position, Records, TopicPartition
from learnd.decoders import DECODERS
from learnd.decoders.fields import Fields, fields_from, long_fields
from learnd.sources import SOURCES
from learnd.sources.settings import SourceContext
from learnd.transforms.chain import Chain
from learnd.transforms.gather import Gather
from learnd.transforms.key_slots import KeySlots
from learnd.transforms.labels import Labels
from learnd.transforms.rules import Rules, rules_from
from learnd.transforms.windows import Windows


def make_source(settings: Settings, decoder: Decoder) -> Source:
    """Return the configured source, which finds the event time of a record with *decoder*."""

    def event_time_s(value: bytes) -> float | None:
        run = Records(TopicPartition("", 0), [0], [value], [None], [0], Position(1))
        samples, _ = decoder.decode(run)
        return float(samples.times_s[0]) if len(samples) else None

    context = SourceContext(settings.name, settings.decode.max_bytes, event_time_s)
    source: Source = SOURCES[settings.source.kind].load().from_settings(settings.source, context)
    return source


def make_decoder(settings: Settings) -> Decoder:
    """Return the configured decoder.

    Raises
    ------
    ConfigError
        if a configured field is not among the columns of the records.
    """
    decode = settings.decode
    layout = SOURCES[settings.source.kind].load().layout(settings.source) if decode.needs_lines else TextLayout()
    fields = _fields(settings)
    if decode.long is not None:
        fields = long_fields(fields, decode.long.name, decode.long.value)
    decoder: Decoder = DECODERS[decode.kind].load().from_settings(fields, decode, layout)
    return decoder


def _fields(settings: Settings) -> Fields:
    return fields_from(
        settings.features,
        settings.target,
        settings.decode,
        weight=settings.learning.sample_weight,
        stop=settings.alarms.planned_stop_field,
        classes=settings.task.fixed_classes,
        classify=settings.task.has_classes,
        fills_gaps=settings.fills_gaps,
        upstream=settings.learning.experts.fields,
        target_limits=settings.task.target_limits,
    )


def make_transforms(settings: Settings, labels: Labels | None) -> Chain:
    """Return the configured transforms: rules of the features, windows per key, class numbers."""
    task = settings.task
    # Without event times there are only the broker's times, which do not reveal repeated readings.
    drop_duplicates = task.duplicates == "drop" and settings.decode.time is not None
    parts: dict[str, Transform] = {}
    if (long := settings.decode.long) is not None:
        fields = _fields(settings)
        parts["gather"] = Gather(
            fields.features,
            fields.targets,
            gaps=long.gaps,
            every_s=long.every_s,
            targets_optional=fields.targets_optional,
            max_keys=task.max_keys,
        )
    if rules := rules_from(settings.features):
        parts["rules"] = Rules(rules, drop_duplicates=drop_duplicates, max_keys=task.max_keys)
    if task.window is not None:
        parts["windows"] = Windows(
            window=task.window,
            features=len(settings.features),
            readings=len(settings.reading_names),
            targets=len(settings.target),
            horizon=task.steps_ahead,
            max_gap_s=task.max_gap_s,
            drop_duplicates=drop_duplicates,
            max_keys=task.max_keys,
            upstream=len(settings.learning.experts.fields),
        )
    if labels is not None:
        parts["labels"] = labels
    if settings.learning.mixes and settings.decode.key is not None:
        parts["slots"] = KeySlots(size=KEY_SLOTS)
    return Chain(parts)
