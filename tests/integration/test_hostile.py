"""Hostile records: no crash, a dead letter for each, and not a bit of the model is theirs."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.checkpoint.reading import read_arrays
from learnd.core.types import Position, Records
from learnd.runtime.loop import run
from learnd.runtime.reader import decode
from learnd.sources.memory import Item, MemorySource
from learnd.testing.kafka import KafkaCluster
from learnd.wiring.pipeline import make_pipeline
from learnd.wiring.stream import make_decoder, make_transforms
from tests.support.helpers import readings, same_arrays, settings
from tests.support.hostile import CORPORA, Corpus, json_corpus, letter, mutations
from tests.unit.test_loop import PARTITION, NoExports

pytestmark = pytest.mark.usefixtures("shared_traces")

HOSTILE = {"json": 40_000, "csv": 30_000, "float32": 30_000}
GOOD = 600
OF_EACH = 40
"""Times that each bad record of the corpus comes; what is huge comes twice."""


def _learn(folder: Path, corpus: Corpus, script: list[Item]) -> tuple[Any, dict[str, Any], list[Any]]:
    """The pipeline, the arrays of its last checkpoint, and its dead letters."""
    path = folder / "letters.jsonl"
    sections: dict[str, Any] = {
        **corpus.sections,
        "model": {"kind": "linear"},
        "learning": {"compile": False, **corpus.sections.get("learning", {})},
        "checkpoint": {"every_seconds": 3600},
        "dead_letter": {"path": str(path)},
    }
    pipeline = make_pipeline(settings(folder / "data", **sections), source=MemorySource(script))
    pipeline.publishing.exporter = NoExports()  # type: ignore[assignment]
    run(pipeline, stopping=lambda: False)
    letters = [letter(json.loads(line)) for line in path.read_text().splitlines()]
    return pipeline, read_arrays(folder / "data" / "checkpoints")[0], letters


def _script(corpus: Corpus, hostile: int) -> tuple[list[Item], dict[int, str | None]]:
    """Good records among *hostile* ones in random order; and at which offsets which verdict must fall (None: good)."""
    told: list[tuple[Item, str | None]] = [(item, reason) for reason, item in corpus.bad.values()] * OF_EACH
    told += [(item, reason) for reason, item in corpus.huge.values()] * 2
    free = list(itertools.islice(mutations(corpus, seed=7), hostile - len(told)))
    order = np.random.default_rng(8).permutation(len(corpus.good) + len(told) + len(free))
    # The good ones stay in their own order, wherever they come to stand.
    kinds = np.sort(order[: len(corpus.good)])
    script: list[Any] = [None] * len(order)
    verdicts: dict[int, str | None] = {}
    for offset, item in zip(kinds.tolist(), corpus.good, strict=True):
        script[offset], verdicts[offset] = item, None
    for offset, (item, reason) in zip(order[len(corpus.good) :].tolist(), told, strict=False):
        script[offset], verdicts[offset] = item, reason
    for offset, item in zip(order[len(corpus.good) + len(told) :].tolist(), free, strict=True):
        script[offset] = item
    return script, verdicts


def test_a_time_far_ahead_does_not_silence_its_key(tmp_path: Path) -> None:
    """The wrong one is rejected; without the rule all that come after it would count as late, for years."""
    now_ms = 1_763_000_000_000
    values = [json.dumps({**json.loads(v), "t": now_ms / 1000 + i}).encode() for i, v in enumerate(readings(20))]
    values[5] = values[5].replace(b'"t": 17', b'"t": 27')
    records = Records(PARTITION, range(20), values, [None] * 20, [now_ms + 1000 * i for i in range(20)], Position(20))
    learned = {}
    for bound in (86_400, None):
        text = settings(
            tmp_path,
            decode={"kind": "json", "time": "t", "time_numbers": "any", "max_ahead_s": bound},
            task={"kind": "regression", "window": 2},
        )
        batch = make_transforms(text, None)(decode([records], make_decoder(text)))
        learned[bound] = len(batch.samples)
        assert [r.reason for r in batch.rejects] == (["ahead_of_time"] if bound else [])
    assert learned == {86_400: 18, None: 5}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow if k == "float32" else ()) for k in CORPORA])
def test_hostile_records_leave_no_trace_in_the_model(kind: str, tmp_path: Path) -> None:
    """Each is one dead letter, whole; weights are finite, and those of the good records alone to the last bit."""
    corpus = CORPORA[kind](GOOD)
    script, verdicts = _script(corpus, HOSTILE[kind])
    pipeline, arrays, letters = _learn(tmp_path / "hostile", corpus, script)

    rejected = {offset: reason for offset, reason, _, _ in letters}
    assert len(rejected) == len(letters), "no record twice"
    assert list(rejected) == sorted(rejected)
    wrong = {o: (r, rejected.get(o), script[o]) for o, r in verdicts.items() if rejected.get(o) != r}
    assert not wrong, list(wrong.values())[:3]
    for offset, _, key, value in letters:
        assert (key, value) == (script[offset].key, script[offset].value)
    value_of = pipeline.metrics.registry.get_sample_value
    counted = {reason: value_of("learnd_records_rejected_total", {"reason": reason}) for reason in rejected.values()}
    assert counted == {reason: list(rejected.values()).count(reason) for reason in counted}
    assert pipeline.progress.records == len(script)

    accepted = [item for offset, item in enumerate(script) if offset not in rejected]
    clean, clean_arrays, none = _learn(tmp_path / "clean", corpus, accepted)
    assert none == []
    assert clean.progress.samples == pipeline.progress.samples
    assert same_arrays(arrays, clean_arrays) == []
    spoiled = [name for name, array in arrays.items() if not np.isfinite(np.asarray(array)).all()]
    assert not spoiled
    print(f"\n{kind}: {len(script)} records, {len(letters)} rejected, {clean.progress.samples} samples learned")


def test_hostile_records_reach_the_dead_letter_topic_and_file_of_a_real_broker(
    kafka_broker: KafkaCluster, tmp_path: Path
) -> None:
    """The same ones in both, each once and whole; what is too large for the topic arrives cut, and holds nothing up."""
    corpus = json_corpus(60)
    told = [item for name, (_, item) in corpus.bad.items() if name != "a time far ahead"]  # the broker's clock is later
    told += [item for _, item in corpus.huge.values()]
    told.append(Item(b"junk", key=b"k" * 5_000_000))
    script = [*corpus.good[:30], *told, *itertools.islice(mutations(corpus, seed=9), 300), *corpus.good[30:]]
    topic = kafka_broker.create_topic("hostile", configs={"max.message.bytes": "20000000"})
    kafka_broker.produce(topic, [item.value for item in script], keys=[item.key for item in script])
    dead = kafka_broker.create_topic("dead", configs={"max.message.bytes": "1000000"})
    path = tmp_path / "letters.jsonl"

    samples = []
    for sink in ({"topic": dead}, {"path": str(path)}):
        sections: dict[str, Any] = {
            **corpus.sections,
            "model": {"kind": "linear"},
            "source": {"kind": "kafka", "bootstrap_servers": [kafka_broker.bootstrap], "topics": [topic]},
            "dead_letter": sink,
        }
        pipeline = make_pipeline(settings(tmp_path / next(iter(sink)), **sections), once=True)
        pipeline.publishing.exporter = NoExports()  # type: ignore[assignment]
        run(pipeline, stopping=lambda: False)
        assert pipeline.saving.last is not None
        assert pipeline.progress.records == len(script)
        samples.append(pipeline.progress.samples)
    assert samples[0] == samples[1]

    in_file = {offset: rest for offset, *rest in map(letter, map(json.loads, path.read_text().splitlines()))}
    assert len(in_file) == len(script) - samples[1]
    assert set(range(30, 30 + len(told))) <= set(in_file)
    records = kafka_broker.consume(dead, count=len(in_file))
    assert len(records) == len(in_file)
    for record in records:
        headers = {name.removeprefix("__connect.errors."): value.decode() for name, value in record.headers}
        reason, key, value = in_file[int(headers["offset"])]
        assert headers["exception.class.name"] == reason
        for name, whole, there in (("key", key, record.key), ("value", value, record.value)):
            size = headers.get(f"learnd.{name}.bytes")
            expected = whole if size is None else whole[: len(there)]
            # kafka-python can write no record with neither key nor value.
            assert there == (b"" if name == "key" and (key, value) == (None, None) else expected)
            assert size is None or (int(size), len(there)) == (len(whole), 1000)
    cut = [name for record in records for name, _ in record.headers if name.startswith("learnd.")]
    assert sorted(cut) == ["learnd.key.bytes", "learnd.value.bytes"]
    print(f"\nbroker: {len(script)} records, {len(records)} dead letters in the topic, {len(in_file)} in the file")
