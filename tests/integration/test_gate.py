"""Exports that the gate refuses, and exports that an operator publishes again."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import structlog.testing
import tensorflow as tf

from learnd.core.errors import ExportDamagedError, ExportError, UsageError
from learnd.core.types import Float32Array
from learnd.export import manifest_schema
from learnd.export.audit import audit
from learnd.export.champion import read_champion
from learnd.export.republish import Republisher
from learnd.export.versions import YOUNG_S, Versions, read_hold, write_hold
from learnd.export_worker.worker import build_export
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import MemorySource, Pause
from tests.integration.test_skill import walk
from tests.support.exports import hollow, learned
from tests.support.helpers import SAVED_MODEL, config_text, readings, run_cli
from tests.unit.test_loop import _learn_until, _make
from tests.unit.test_manifest import _write_key
from tests.unit.test_versions import Clock

pytestmark = pytest.mark.usefixtures("shared_traces")


def _numbers(data_dir: Path) -> list[int]:
    return Versions(data_dir / "exports", keep=5).numbers()


def _exported(folder: Path, script: list[bytes], **export: Any) -> Pipeline:
    gate = {"naive": True}  # off by default, because this is a regression
    return learned(folder, script=script, export={**SAVED_MODEL, "gate": gate, **export}, decode={"kind": "json"})


def test_weights_that_are_worse_than_naive_are_not_published(tmp_path: Path) -> None:
    """Not at the stop either, if there is an export; the refusal is counted, logged and shown, and the gate can be off.

    The first export of a model is published all the same, with a warning: users need a file.
    """
    lines = walk(2600)
    with structlog.testing.capture_logs() as logs:
        _exported(tmp_path, lines[:1400])
    assert [entry["reference"] > 0 for entry in logs if entry["event"] == "export_worse_than_naive"] == [True]
    assert len(_numbers(tmp_path)) == 1
    with structlog.testing.capture_logs() as logs:
        pipeline = learned(tmp_path, script=lines[:2000], export={"formats": []}, decode={"kind": "json"})
        assert not [entry for entry in logs if "refused" in entry["event"]], "there is nothing to refuse"
        source = MemorySource(lines)
        pipeline = _make(tmp_path, source, export={**SAVED_MODEL, "gate": {"naive": True}}, decode={"kind": "json"})
        run(pipeline, stopping=lambda: False)
    (refused,) = (entry for entry in logs if entry["event"] == "export_refused")
    assert (refused["reason"], refused["log_level"], refused["samples"]) == ("naive", "warning", 2600)
    assert refused["error"] > refused["reference"]
    assert "gate: off" in refused["note"]
    assert len(_numbers(tmp_path)) == 1
    value = pipeline.metrics.registry.get_sample_value
    assert value("learnd_export_refusals_total", {"reason": "naive"}) == 1
    shown = json.loads(run_cli("inspect", str(tmp_path)).stdout)
    assert shown["refused_exports"]["count"] == 1
    assert shown["refused_exports"]["last"]["samples"] == 2600
    assert pipeline.publishing.refused is not None
    pipeline = _exported(tmp_path, [*lines, *walk(100, seed=1)], gate=False)
    assert len(_numbers(tmp_path)) == 2


def test_weights_that_are_worse_than_the_newest_export_are_not_published(tmp_path: Path) -> None:
    """Judged on the samples that arrived after it, once there are 200; after a rollback, another one is the newest."""
    script = [item for seed in range(7) for item in [*readings(150, seed=seed), Pause()]]
    pipeline = _make(tmp_path, MemorySource(script), export=SAVED_MODEL)
    publishing = pipeline.publishing
    exporter = publishing.exporter
    exporter._build = lambda building, urgent: hollow(building)  # type: ignore[method-assign]

    def perfect(x: Float32Array, y: Float32Array) -> tuple[Float32Array, Float32Array]:
        return np.zeros(len(x), np.float32), y

    def publish() -> int:
        pipeline.export()
        assert exporter.wait(60)
        pipeline.collect_outcomes()
        return len(exporter.numbers())

    assert pipeline.open()
    try:
        _learn_until(pipeline, 150)
        assert publish() == 1
        publishing._forward.begin(exporter.newest_number(), perfect)
        _learn_until(pipeline, 300)
        assert publish() == 2, "64 rows of each batch: too few"
        publishing._forward.begin(exporter.newest_number(), perfect)
        _learn_until(pipeline, 900)
        assert publish() == 2
        assert publishing.refused is not None
        assert publishing.refused.reason == "published"
        publishing._forward.begin(exporter.newest_number() + 1, perfect)
        _learn_until(pipeline, 1050)
        assert publish() == 3, "the evaluated export is not the newest one any more"
        assert publishing.refused is None
    finally:
        pipeline.close()


def test_the_newest_export_is_compared_after_a_restart_too(tmp_path: Path) -> None:
    """By its weights as they were published; not once another export is the newest, or if the file is damaged."""
    script = [item for seed in range(4) for item in [*readings(150, seed=seed), Pause()]]

    def start(records: int) -> Pipeline:
        pipeline = _make(tmp_path, MemorySource(script), export=SAVED_MODEL)
        pipeline.publishing.exporter._build = lambda building, urgent: hollow(building)  # type: ignore[method-assign]
        assert pipeline.open()
        _learn_until(pipeline, records)
        return pipeline

    pipeline = start(150)
    pipeline.export()
    assert pipeline.publishing.exporter.wait(60)
    pipeline.collect_outcomes()
    exported = pipeline.model.averaged.weights()
    pipeline.save()
    pipeline.close()
    champion = read_champion(tmp_path / "exports")
    assert champion is not None and [champion.number] == _numbers(tmp_path)
    for mine, published in zip(champion.weights, exported, strict=True):
        np.testing.assert_array_equal(mine, published)
    with structlog.testing.capture_logs() as logs:
        pipeline = start(450)
    assert [entry["number"] for entry in logs if entry["event"] == "champion_restored"] == [champion.number]
    published = pipeline.publishing.published()
    assert published is not None and published.number == champion.number and published.recent_samples >= 100
    assert np.isfinite(published.recent_loss)
    exporter = pipeline.publishing.exporter
    pipeline.close()
    assert exporter.champion(above=champion.number) is None
    (tmp_path / "exports" / ".champion.npz").write_bytes(b"damaged")
    assert exporter.champion(above=0) is None


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with three exports, of 100, 200 and 300 samples."""
    folder = tmp_path_factory.mktemp("three")
    values = readings(300)
    for count in (100, 200, 300):
        learned(folder, script=values[:count])
    assert len(_numbers(folder)) == 3
    return folder


@pytest.fixture
def data_dir(exports: Path, tmp_path: Path) -> Iterator[Path]:
    copy = tmp_path / "data"
    subprocess.run(["cp", "-a", str(exports), str(copy)], check=True)
    yield copy


def _document(data_dir: Path, name: object = "latest") -> dict[str, Any]:
    document: dict[str, Any] = json.loads((data_dir / "exports" / str(name) / "learnd.json").read_text())
    return document


def _answer(data_dir: Path, name: object = "latest") -> Any:
    loaded = tf.saved_model.load(str(data_dir / "exports" / str(name)))
    return loaded.signatures["serving_default"](inputs=tf.constant([[5.0, 100.0, -1.0]]))["prediction"].numpy()


def test_a_rollback_publishes_the_previous_export_under_a_higher_number(data_dir: Path) -> None:
    """Programs that list and programs that follow `latest` agree; it is sound, and says what it is."""
    first, second, third = _numbers(data_dir)
    done = run_cli("rollback", str(data_dir / "exports"))
    assert done.returncode == 0, done.stderr
    newest = _numbers(data_dir)[-1]
    assert f"published {second} again as {newest}" in done.stdout
    assert newest > third
    assert (data_dir / "exports" / "latest").readlink() == Path(str(newest))
    document = _document(data_dir)
    jsonschema.validate(document, json.loads(manifest_schema.SCHEMA_FILE.read_text()))
    assert (document["number"], document["republished_of"], document["samples"]) == (newest, second, 200)
    assert document["parent"]["number"] == third
    assert audit(data_dir / "exports" / "latest").sound
    assert _answer(data_dir).tobytes() == _answer(data_dir, second).tobytes() != _answer(data_dir, third).tobytes()
    card = (data_dir / "exports" / "latest" / "MODEL_CARD.md").read_text()
    assert f"export {newest}" in card
    assert f"the content of export {second} again" in card
    assert run_cli("rollback", str(data_dir)).returncode == 0
    assert _document(data_dir)["republished_of"] == first, "one further back, not to where it came from"
    nothing = run_cli("rollback", str(data_dir))
    assert nothing.returncode == 64
    assert "no sound export before the one in use" in nothing.stderr


def test_a_rollback_passes_over_a_damaged_export(data_dir: Path) -> None:
    """Named as the goal, it is an error; nothing is published."""
    first, second, _ = _numbers(data_dir)
    (data_dir / "exports" / str(second) / "MODEL_CARD.md").write_text("changed")
    refused = run_cli("rollback", str(data_dir), "--to", str(second))
    assert (refused.returncode, len(_numbers(data_dir))) == (70, 3)
    assert "changed: MODEL_CARD.md" in refused.stderr
    done = run_cli("rollback", str(data_dir))
    assert f"passed over {second}" in done.stdout
    assert _document(data_dir)["republished_of"] == first


def test_a_promotion_names_an_export_by_its_folder_or_its_number(data_dir: Path, tmp_path: Path) -> None:
    """The argument is a configuration, a data_dir or a folder. The newest export is never published again."""
    first, second, third = _numbers(data_dir)
    assert run_cli("promote", str(data_dir / "exports" / str(first))).returncode == 0
    assert _document(data_dir)["republished_of"] == first
    config = tmp_path / "config.yaml"
    config.write_text(config_text(data_dir))
    assert run_cli("promote", str(config), str(second)).returncode == 0
    assert _document(data_dir)["republished_of"] == second
    count = len(_numbers(data_dir))
    (data_dir / "exports" / "latest").unlink()
    (data_dir / "exports" / "latest").symlink_to(str(third))
    assert run_cli("promote", str(data_dir), str(_numbers(data_dir)[-1])).returncode == 0
    assert len(_numbers(data_dir)) == count
    assert (data_dir / "exports" / "latest").readlink() == Path(str(_numbers(data_dir)[-1]))
    for wrong in ([str(data_dir), "5"], [str(tmp_path)], [str(tmp_path / "nowhere"), "5"], [str(data_dir), "x"]):
        assert run_cli("promote", *wrong).returncode == 64, wrong


def test_a_held_export_stays_until_it_is_released(data_dir: Path) -> None:
    """The daemon publishes nothing meanwhile, not even at its stop; after the release it does."""
    values = readings(500)
    assert "held" in run_cli("rollback", str(data_dir), "--hold").stdout
    newest = _numbers(data_dir)[-1]
    assert json.loads(run_cli("inspect", str(data_dir)).stdout)["hold"] == newest
    pipeline = _make(data_dir, MemorySource(values[:400]), export=SAVED_MODEL, decode=DECODE)
    pipeline.publishing.exporter._build = lambda building, urgent: build_export(building)  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        run(pipeline, stopping=lambda: False)
    assert [entry["event"] for entry in logs if entry["event"] == "exports_held"] == ["exports_held"]
    assert _numbers(data_dir)[-1] == newest
    assert "released" in run_cli("promote", str(data_dir), str(newest)).stdout
    assert read_hold(data_dir / "exports") is None
    learned(data_dir, script=values)
    assert _numbers(data_dir)[-1] > newest, "the next automatic export is allowed"


DECODE = {"kind": "json", "time": "t", "time_numbers": "any", "key": "k"}


def test_an_export_that_was_chosen_is_not_pruned(data_dir: Path) -> None:
    """However many automatic exports follow it."""
    clock = Clock()
    directory = data_dir / "exports"
    chosen = Republisher(directory).rollback().number
    versions = Versions(directory, keep=2, clock=clock)
    versions.open()
    for _ in range(4):
        number = versions.take_number()
        versions.building(number).mkdir()
        versions.publish(number)
        clock.at_s += 2 * YOUNG_S
    versions.prune()
    assert chosen in versions.numbers()
    assert len(versions.numbers()) == 3


def test_a_build_that_a_rollback_overtook_is_not_published(data_dir: Path) -> None:
    """Its number would be below the newest, and `latest` would point back."""
    directory = data_dir / "exports"
    versions = Versions(directory, keep=5)
    number = versions.take_number()
    versions.building(number).mkdir()
    newest = Republisher(directory).rollback().number
    with pytest.raises(ExportError, match=f"{newest} was published meanwhile"):
        versions.publish(number)
    assert versions.latest() == newest == versions.numbers()[-1]


def test_a_signed_export_is_signed_again(tmp_path: Path) -> None:
    """With the key of the configuration; without it, the command says where the key is."""
    _write_key(tmp_path / "own.pem")
    values = readings(200)
    export = {**SAVED_MODEL, "signing_key_file": str(tmp_path / "own.pem")}
    for count in (100, 200):
        learned(tmp_path / "data", script=values[:count], export=export)
    with pytest.raises(UsageError, match="has the key, instead of a folder"):
        Republisher(tmp_path / "data" / "exports").rollback()
    config = tmp_path / "config.yaml"
    config.write_text(config_text(tmp_path / "data", export=export))
    assert run_cli("rollback", str(config)).returncode == 0
    assert len(_numbers(tmp_path / "data")) == 3
    report = audit(tmp_path / "data" / "exports" / "latest", tmp_path / "own.pub")
    assert (report.sound, report.signature) == (True, "good")


def test_an_export_of_another_form_is_not_published_again(data_dir: Path) -> None:
    """Its manifest would not fit the schema of this version."""
    first = _numbers(data_dir)[0]
    path = data_dir / "exports" / str(first) / "learnd.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 3}))
    with pytest.raises(UsageError, match="another version of learnd"):
        Republisher(data_dir / "exports").promote(first)
    with pytest.raises(ExportDamagedError):
        (path.parent / "extra").write_text("x")
        Republisher(data_dir / "exports").promote(first)
    assert not list((data_dir / "exports").glob(".building-*"))


def test_a_damaged_hold_still_holds(tmp_path: Path) -> None:
    """Better no new export than one that the operator wanted to prevent."""
    write_hold(tmp_path, 7)
    assert read_hold(tmp_path) == 7
    (tmp_path / ".hold").write_text("x")
    assert read_hold(tmp_path) == 0
    write_hold(tmp_path, None)
    assert read_hold(tmp_path) is None
