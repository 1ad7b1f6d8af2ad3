"""Checks between sections that are each valid by themselves.

They ask the sections what they are able to do, and do not know their kinds: a new kind answers for itself.
"""

from collections.abc import Iterator
from pathlib import Path

from learnd.config.settings import Settings
from learnd.core.arrays import array_of
from learnd.core.names import suggestion
from learnd.drift.detectors.settings import FEATURES, LOSS

Check = tuple[tuple[str | int, ...], str]
"""The path of a key, and what is wrong with its value."""


def contradictions(settings: Settings) -> Iterator[Check]:
    """Yield what is wrong between sections that are each valid by themselves."""
    yield from _fields(settings)
    yield from _features(settings)
    yield from _arrays(settings)
    yield from _seasons(settings)
    yield from _model(settings)
    yield from _learning(settings)
    yield from _records(settings)
    yield from _truth(settings)
    yield from _sinks(settings)
    yield from _drift(settings)
    yield from _export(settings)
    if "intervals" in settings.model_fields_set and settings.intervals != "off" and settings.interval_coverage is None:
        yield ("intervals",), f"has no effect for task.kind {settings.task.kind}; remove it, or use off"
    if settings.checkpoint.every_seconds is None and settings.checkpoint.every_samples is None:
        yield ("checkpoint",), "set every_seconds or every_samples"


def _fields(settings: Settings) -> Iterator[Check]:
    task, decode = settings.task, settings.decode
    for problem in task.target_problems(settings.target):
        yield ("target",), problem
    if decode.time_of_day is not None and decode.time is None:
        yield ("decode", "time_of_day"), "needs the field with the date: name it in decode.time"
    for key in ("time", "time_of_day", "key"):
        name = getattr(decode, key)
        if name is not None and (name in settings.features or name in settings.target):
            yield ("decode", key), f"{name} is also a feature or a target; a field can have only one role"
    stop = settings.alarms.planned_stop_field
    if stop is not None and stop in (*settings.features, *settings.target, decode.time, decode.key):
        yield ("alarms", "planned_stop_field"), f"{stop} has another role already; a field can have only one role"
    for place, rule in enumerate(settings.alarms.suppress):
        if rule.feature is not None and rule.feature not in (*settings.features, *settings.target):
            names = (*settings.features, *settings.target)
            yield (
                ("alarms", "suppress", place, "feature"),
                f"{rule.feature} is no feature{suggestion(rule.feature, names)}",
            )
    if decode.time is not None and decode.time == decode.key:
        yield ("decode", "key"), f"{decode.key} is also the time; a field can have only one role"
    for name in settings.target:
        if name in settings.features:
            yield ("target",), f"{name} is also a feature; a model that sees its target learns nothing"
    if len(set(settings.target)) < len(settings.target):
        yield ("target",), "names a field more than once; name each field once"
    if task.needs_times and task.max_gap_s is not None and decode.time is None and not settings.source.has_record_times:
        yield ("task", "max_gap_s"), "needs event times: name the field in decode.time"


def _features(settings: Settings) -> Iterator[Check]:
    for name, feature in settings.features.items():
        if feature.min is not None and feature.max is not None and feature.min >= feature.max:
            yield ("features", name), f"min {feature.min} must be below max {feature.max}"
        if feature.missing == "mean" and not settings.fills_gaps:
            message = "mean needs a task with a target field and scaled inputs; use a number or reject"
            yield ("features", name, "missing"), message
        if feature.indicator and not (settings.fills_gaps and feature.missing in (None, "mean")):
            message = "needs missing: mean, and a task with a target field and scaled inputs; remove it"
            yield ("features", name, "indicator"), message
        if feature.stuck_after is not None and feature.on_fault == "hold":
            yield ("features", name, "on_fault"), "hold would repeat the reading that is stuck; use mean or reject"
        if feature.on_fault != "reject" and not feature.has_rule:
            yield ("features", name, "on_fault"), "has no effect without min, max, max_change or stuck_after; set one"


def _arrays(settings: Settings) -> Iterator[Check]:
    """Yield what cannot be done with an array."""
    array = array_of(settings.features)
    if array is None:
        return
    name, options = array[0], next(iter(settings.features.values()))
    if settings.task.window is not None:
        yield ("task", "window"), f"is a history of numbers, and {name} is an array: remove window"
    if not settings.task.fills_gaps:
        yield ("task", "kind"), f"{settings.task.kind} predicts readings, and {name} is an array; use another task"
    if options.indicator:
        yield ("features", name, "indicator"), "is for numbers; an array has none: remove it"


def _seasons(settings: Settings) -> Iterator[Check]:
    decode = settings.decode
    has_times = decode.time is not None or settings.source.has_record_times
    for name, feature in settings.features.items():
        place = ("features", name)
        if feature.season is None:
            if feature.time is not None:
                yield (*place, "time"), "has no effect without season; set season to day, week or a number of seconds"
            continue
        for option in ("min", "max", "missing", "max_change", "stuck_after"):
            if getattr(feature, option) is not None:
                yield (*place, option), "is for readings, and a seasonal input is none; remove it"
        if settings.task.evaluated_on == "inputs":
            yield (*place, "season"), f"does not fit task.kind {settings.task.kind}, which would predict the time"
        if feature.time is None and not has_times:
            yield (*place, "season"), "needs the time of each record: name a field in time, or in decode.time"
        if feature.time is not None and decode.is_binary:
            yield (
                (*place, "time"),
                f"cannot be read from {decode.kind} rows, which have no named fields; use json or csv",
            )
        if feature.time in settings.features or feature.time in settings.target:
            yield (*place, "time"), f"{feature.time} is also a feature or a target; a field can have only one role"
    if not settings.reading_names:
        yield ("features",), "are all seasonal; name at least one field of the record"


def _model(settings: Settings) -> Iterator[Check]:
    model, task = settings.model, settings.task
    if model.needs_window and task.window is None:
        yield ("model", "kind"), f"{model.kind} needs a sequence: set task.window to the number of readings"
    if model.only_task not in (None, task.kind):
        yield ("model", "kind"), f"{model.kind} needs task.kind {model.only_task}; use mlp, or change the task"
    if model.normalizes_batches and settings.learning.batch_rows == 1:
        yield ("model", "normalization"), "batch needs learning.mode micro_batch: one sample has no variance; use layer"
    if model.load is None:
        for name in ("code", "allow_lambda"):
            if getattr(model, name):
                yield ("model", name), "has an effect only on a loaded model; name a file in model.load, or remove it"
        if model.head is not None and not model.has_end:
            yield ("model", "head"), f"replaces the last layers of an existing model; {model.kind} already fits"


def _learning(settings: Settings) -> Iterator[Check]:
    learning = settings.learning
    if learning.class_weights is not None and not settings.task.has_classes:
        yield ("learning", "class_weights"), f"{settings.task.kind} has no classes; remove it"
    if learning.sample_weight is not None and learning.sample_weight in (*settings.features, *settings.target):
        yield ("learning", "sample_weight"), f"{learning.sample_weight} is also a feature or a target"
    if learning.mixes:
        yield from _mixture(settings)
    elif learning.experts.upstream or learning.experts.seasons:
        yield ("learning", "experts"), f"has no effect in the mode {learning.mode}, which mixes nothing; use mode auto"
    if learning.elastic and not settings.averaging.averages:
        yield ("learning", "elastic"), "needs averaged weights to pull towards; set averaging.kind to window or ema"
    if learning.update is not None:
        message = "has no effect with learning.update, which brings its own; remove one of them"
        for name in ("loss", "sample_weight", "class_weights", "replay"):
            if getattr(learning, name) is not None:
                yield ("learning", name), message


def _mixture(settings: Settings) -> Iterator[Check]:
    learning, model, task = settings.learning, settings.model, settings.task
    way_out = "remove it, or set learning.mode to per_sample"
    for name in ("passes", "replay", "elastic", "layer_rates", "update"):
        if getattr(learning, name) != type(learning).model_fields[name].get_default(call_default_factory=True):
            yield ("learning", name), f"has no effect in the mode auto, which chooses for itself; {way_out}"
    if settings.averaging.averages:
        yield ("averaging", "kind"), f"has no effect in the mode auto, which averages by itself; {way_out}"
    if not model.learns_by_itself or model.load is not None or model.freeze is not None:
        yield ("learning", "mode"), "auto is made for new built-in models; use per_sample for this one"
    yield from _experts(settings)
    if not task.mixes:
        yield ("learning", "mode"), f"auto cannot mix answers for task.kind {task.kind}; use per_sample"


def _experts(settings: Settings) -> Iterator[Check]:
    experts, task = settings.learning.experts, settings.task
    if task.has_classes and (experts.upstream or experts.seasons):
        yield ("learning", "experts"), f"predict numbers, and {task.kind} has none; remove it"
    for name, fields in experts.upstream.items():
        place, count = ("learning", "experts", "upstream", name), settings.output_count
        if len(fields) != count and not task.has_classes:
            yield place, f"names {len(fields)} fields; a prediction has {count} numbers: name one field for each"
        for field in fields:
            if field in settings.target:
                yield place, f"{field} is also the target; name the field with its forecast"
    if len(set(experts.fields)) < len(experts.fields):
        yield ("learning", "experts", "upstream"), "names a field more than once; name each field once"


def _paths(settings: Settings) -> Iterator[Check]:
    decode, learning = settings.decode, settings.learning
    for name, feature in settings.features.items():
        if feature.path is None:
            continue
        if not decode.reads_paths:
            yield ("features", name, "path"), f"is for nested JSON; {decode.kind} has no nested values: remove it"
        elif feature.season is not None:
            yield ("features", name, "path"), "is for readings; give its time a path, in decode.paths"
        elif name in decode.paths_of_fields:
            yield ("features", name, "path"), "is also in decode.paths; name it once"
    times = [decode.time, decode.time_of_day, *(season.time for season in settings.seasons)]
    known = [*settings.reading_names, *settings.target, *times, decode.key, learning.sample_weight]
    known += [settings.alarms.planned_stop_field, *learning.experts.fields]
    known += [] if decode.long is None else [decode.long.name, decode.long.value]
    for name in decode.paths_of_fields:
        if name not in known:
            names = [field for field in known if field is not None]
            yield ("decode", "paths", name), f"is no field of this configuration{suggestion(name, names)}"


def _long(settings: Settings) -> Iterator[Check]:
    """Yield what records with one value each cannot do."""
    decode, learning = settings.decode, settings.learning
    if decode.long is None:
        return
    place = ("decode", "long")
    if decode.long.name == decode.long.value:
        yield (*place, "value"), f"{decode.long.value} is also the name; a field can have only one role"
    if decode.time is None and not settings.source.has_record_times:
        yield place, "gathers the values of one time: name the field with it in decode.time"
    if settings.task.has_classes:
        yield place, f"holds numbers, and task.kind {settings.task.kind} needs classes; write one record per row"
    extra = [learning.sample_weight, settings.alarms.planned_stop_field, *learning.experts.fields]
    if any(name is not None for name in extra):
        yield place, "has no fields besides names and values: remove sample_weight, planned_stop_field and upstream"
    for name, feature in settings.features.items():
        if feature.path is not None:
            yield ("features", name, "path"), "with decode.long, values are found by their names; remove it"


def _records(settings: Settings) -> Iterator[Check]:
    source, decode = settings.source, settings.decode
    yield from _paths(settings)
    yield from _long(settings)
    if decode.text_encoding is not None and source.path_read is not None:
        yield ("decode", "encoding"), "a file source reads the file's encoding itself: set source.encoding instead"
    if decode.is_binary and source.has_lines:
        yield (
            ("decode", "kind"),
            f"{decode.kind} rows are not lines, so a file source cannot read them; use csv or json",
        )
    if not decode.needs_lines:
        return
    columns = decode.named_columns
    if columns is None:
        if not source.names_columns:
            yield ("decode", "columns"), "is required, because these records have no header line with column names"
        return
    learning = settings.learning
    times = [decode.time, decode.time_of_day, *(season.time for season in settings.seasons)]
    values = [*settings.reading_names, *settings.target]
    if decode.long is not None:
        values = [decode.long.name, decode.long.value]
    fields = [*values, *times, decode.key]
    fields += [
        None if settings.truth is None else settings.truth.id,
        learning.sample_weight,
        settings.alarms.planned_stop_field,
        *learning.experts.fields,
    ]
    for name in fields:
        if name is not None and name not in columns and not name.startswith("__"):
            yield ("decode", "columns"), f"lacks {name}{suggestion(name, columns)}"


def _truth(settings: Settings) -> Iterator[Check]:
    truth, decode = settings.truth, settings.decode
    if truth is None:
        return
    if not settings.target:
        yield ("truth",), f"has no effect for task.kind {settings.task.kind}, whose targets are readings; remove it"
    if decode.is_binary:
        yield ("truth",), f"needs named fields, which {decode.kind} rows do not have; use json or csv"
    if decode.long is not None:
        yield ("truth",), "cannot be combined with decode.long, whose records hold one reading each"
    if decode.missing_target == "reject":
        yield ("decode", "missing_target"), "reject leaves nothing that waits for a truth; remove it, or truth"
    roles = (*settings.features, *settings.target, decode.time, decode.key)
    if truth.id is not None and truth.id in roles:
        yield ("truth", "id"), f"{truth.id} has another role already; a field can have only one role"
    if truth.id is None and decode.time is None:
        yield ("truth", "id"), "is required without decode.time: a truth needs something by which it finds its record"
    if truth.topic is not None:
        if truth.topic not in settings.source.topics_read:
            yield ("truth", "topic"), f"{truth.topic} is not read; add it to source.topics"
        if decode.time is None:
            yield ("truth", "topic"), "needs decode.time: event times tell how far the topic of truths has come"
    if settings.alarms.enabled and settings.alarms.learning in ("hold", "weigh"):
        yield ("alarms", "learning"), f"{settings.alarms.learning} cannot be combined with truth; use learn"


def _sinks(settings: Settings) -> Iterator[Check]:
    source = settings.source
    paths: dict[str, Path | None] = {"source": source.path_read}
    for section in ("dead_letter", "predictions", "alarm_sink"):
        sink = getattr(settings, section)
        if sink is None:
            continue
        if sink.topic is not None:
            if source.connection is None:
                yield (section, "topic"), "needs source.kind kafka; set path instead"
            elif sink.topic in source.topics_read:
                yield (section, "topic"), f"{sink.topic} is read by the source; learnd would read its own output"
        for other, path in paths.items():
            if sink.path is not None and path is not None and sink.path.resolve() == path.resolve():
                yield (section, "path"), f"{sink.path} is also the path of {other}; use a different file for each"
        paths[section] = sink.path

    if settings.serve != "live" and not (settings.averaging.averages or settings.learning.mixes):
        yield ("predictions", "serve"), f"{settings.serve} needs averaged weights; set averaging.kind, or use live"


def _drift(settings: Settings) -> Iterator[Check]:
    learning, drift = settings.learning, settings.drift
    observed = (FEATURES, *settings.reading_names, *settings.target) if settings.array_shape is None else ()
    names = (LOSS, *observed)
    for section, entries in (("detectors", drift.detectors), ("reactions", drift.reactions)):
        for place, entry in enumerate(entries):
            for name in entry.on:
                if name not in names and "on" in entry.model_fields_set:
                    yield ("drift", section, place, "on"), f"{name} is no feature{suggestion(name, names)}"
    for place, reaction in enumerate(drift.reactions):
        at = ("drift", "reactions", place)
        if reaction.needs_constant_rate and learning.has_schedule:
            yield at, f"{reaction.kind} needs a learning rate that is a number; remove it, or the schedule"
        if reaction.needs_replay and learning.replay is None and not learning.mixes:
            yield at, f"{reaction.kind} needs learning.replay, or learning.mode auto; remove it"
        if reaction.needs_averages and not (learning.mixes or settings.averaging.averages):
            yield at, f"{reaction.kind} needs averaged weights; remove it, or set averaging.kind to window or ema"


def _export(settings: Settings) -> Iterator[Check]:
    export = settings.export
    if export.every_seconds is None and export.every_samples is None:
        yield ("export",), "set every_seconds or every_samples; to publish nothing, set formats: []"
    if not export.formats and (export.upload is not None or export.signing_key_file is not None):
        yield ("export", "formats"), "is empty, so there is nothing to sign or upload; add one, or remove those options"
