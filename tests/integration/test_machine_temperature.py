"""The main job on a real sensor: Kafka in; forecasts, checkpoints and exports out."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from learnd.checkpoint.reading import read_arrays
from learnd.config.loader import load
from learnd.testing.kafka import KafkaCluster
from learnd.wiring.model import make_model
from tests.support.helpers import ROOT, Daemon, run_cli

DATA = ROOT / "tests" / "data" / "machine_temperature.csv.gz"
CONFIG = ROOT / "configs" / "machine-temperature.yaml"
ANOMALIES = (
    ("2013-12-10 06:25", "2013-12-12 05:35"),
    ("2013-12-15 17:50", "2013-12-17 17:00"),
    ("2014-01-27 14:20", "2014-01-29 13:30"),
    ("2014-02-07 14:55", "2014-02-09 14:05"),
)


@dataclass
class Run:
    """What one run over the whole stream left behind."""

    data_dir: Path
    values: np.ndarray[Any, Any]
    predictions: list[dict[str, Any]]
    environ: dict[str, str]

    @property
    def newest_export(self) -> Path:
        return max((self.data_dir / "exports").glob("[0-9]*"), key=lambda path: int(path.name))


def _column(run: Run, name: str) -> np.ndarray[Any, Any]:
    return np.array([line[name]["value"] for line in run.predictions])


@pytest.fixture(scope="module")
def run(kafka_broker: KafkaCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The stream produced to the broker and learned by the installed command, to its end."""
    with gzip.open(DATA, "rt") as file:
        rows = list(csv.DictReader(file))
    topic = kafka_broker.create_topic("machine-temperature")
    values = [{"timestamp": row["timestamp"], "value": float(row["value"])} for row in rows]
    kafka_broker.produce(topic, [json.dumps(value).encode() for value in values])
    folder = tmp_path_factory.mktemp("machine-temperature")
    config = folder / "config.yaml"
    config.write_text(CONFIG.read_text())
    environ = {
        "KAFKA_BOOTSTRAP": kafka_broker.bootstrap,
        "LEARND_TOPIC": topic,
        "LEARND_DATA_DIR": str(folder / "data"),
        "LEARND_PORT": "0",
    }
    with Daemon(config, "--once", environ=environ) as daemon:
        daemon.finish()
    with (folder / "data" / "predictions.jsonl").open() as file:
        lines = [json.loads(line) for line in file]
        predictions = [line for line in lines if line["truth"] is not None]  # the others come before their truth
    yield Run(folder / "data", np.array([value["value"] for value in values]), predictions, environ)


def test_forecast_beats_the_last_reading_over_the_whole_stream(run: Run) -> None:
    """Mean absolute error below that of "the same as the last reading", on the very same readings."""
    truth = _column(run, "truth")
    offsets = np.array([line["offset"] for line in run.predictions])
    naive = np.abs(run.values[offsets - 1] - truth).mean()
    learned = np.abs(_column(run, "prediction") - truth).mean()
    print(f"\nmean absolute error: forecast {learned:.4f}, last reading {naive:.4f}")
    assert len(run.predictions) > 22_000
    assert learned < naive


def test_anomaly_scores_are_higher_inside_the_labelled_windows(run: Run) -> None:
    """The mean score inside the windows exceeds the one outside, for live and averaged weights."""
    times_s = np.array([line["time_s"] for line in run.predictions])
    inside = np.zeros(len(times_s), bool)
    for first, last in ANOMALIES:
        bounds = [datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() for moment in (first, last)]
        inside |= (times_s >= bounds[0]) & (times_s <= bounds[1])
    for name in ("score", "averaged_score"):
        scores = np.array([line[name] for line in run.predictions])
        ratio = scores[inside].mean() / scores[~inside].mean()
        print(f"\n{name}: inside the labelled windows {ratio:.2f} times outside")
        assert ratio > 1.0


def test_exports_agree_with_each_other_and_with_the_checkpoint(run: Run) -> None:
    """SavedModel, TFLite, and the averaged weights of the newest checkpoint give the same forecasts."""
    x = np.stack([run.values[i : i + 24, None] for i in range(0, 22_000, 1000)]).astype(np.float32)
    saved_model = tf.saved_model.load(str(run.newest_export / "saved_model"))
    from_saved_model = saved_model.signatures["serving_default"](inputs=tf.constant(x))["prediction"].numpy()
    runner = Interpreter(str(run.newest_export / "model.tflite")).get_signature_runner("serving_default")
    from_tflite = np.concatenate([runner(inputs=row[None])["prediction"] for row in x])

    arrays, state = read_arrays(run.data_dir / "checkpoints")
    network = make_model(load(CONFIG, run.environ)).network
    for i, variable in enumerate(network.averaged_weights()):
        variable.assign(arrays[f"averager/mean/{i}"])
    for variable in network.constants():  # the present scales
        variable.assign(arrays[f"model/{variable.path}"])
    from_checkpoint = network(x)["prediction"].numpy()

    np.testing.assert_allclose(from_saved_model, from_checkpoint, atol=1e-4)
    np.testing.assert_allclose(from_tflite, from_checkpoint, atol=1e-4)
    assert np.ptp(from_checkpoint - x[:, -1]) > 0.01, "the model forecasts no change at all"
    manifest = json.loads((run.newest_export / "learnd.json").read_text())
    assert manifest["samples"] == state["progress"]["samples"]
    assert manifest["offsets"][0]["next_offset"] == len(run.values)


def test_inspect_finds_the_export_sound(run: Run) -> None:
    """``learnd inspect`` recomputes the hashes of the manifest."""
    shown = run_cli("inspect", str(run.newest_export))
    assert json.loads(shown.stdout)["sound"] is True, shown.stderr
