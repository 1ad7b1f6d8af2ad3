"""The whole way of an image model: a backbone of Keras' own with a new head, from rows on Kafka to a C++ program."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from learnd.testing.kafka import KafkaCluster
from tests.support.helpers import ROOT, Daemon, config_text, until

COMPILER = os.environ.get("CXX", "g++")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which(COMPILER) is None,
        reason=f"no C++17 compiler {COMPILER}: apt-get install g++, or name one in the environment's CXX",
    ),
]
SIDE, ROWS = 32, 160


def _images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with more red or more blue."""
    draw = np.random.default_rng(seed)
    images = draw.normal(0.0, 0.1, (count, SIDE, SIDE, 3)).astype(np.float32)
    blue = draw.integers(0, 2, count)
    images[blue == 0, ..., 0] += 3.0
    images[blue == 1, ..., 2] += 3.0
    return images, blue


def test_a_backbone_with_a_new_head_learns_from_kafka_and_runs_in_cpp(
    kafka_broker: KafkaCluster, tmp_path: Path
) -> None:
    """Only the head has moved; C++ answers as Python does, and right."""
    topic = kafka_broker.create_topic("images")
    images, blue = _images(ROWS, seed=0)
    packed = np.concatenate([images.reshape(ROWS, -1), blue[:, None]], axis=1).astype("<f4")
    kafka_broker.produce(topic, [row.tobytes() for row in packed])
    config = tmp_path / "config.yaml"
    config.write_text(
        config_text(
            tmp_path / "data",
            source={"kind": "kafka", "bootstrap_servers": [kafka_broker.bootstrap], "topics": [topic]},
            decode={"kind": "float32", "max_bytes": 100_000},
            features={"image": {"shape": [SIDE, SIDE, 3]}},
            target="blue",
            task={"kind": "classification", "classes": ["0", "1"]},
            model={"factory": "tests.support.user_models:backbone_of_keras", "freeze": {"layers": ["mobilenet*"]}},
            scaling={"inputs": "none"},
            learning={
                "mode": "micro_batch",
                "batch_size": 8,
                "compile": False,
                "optimizer": {"kind": "adam", "learning_rate": 0.001},
            },
            export={"formats": ["saved_model"], "rehearse": True, "every_samples": ROWS, "gate": "off"},
        )
    )
    with Daemon(config, environ={"PYTHONPATH": str(ROOT)}) as daemon:
        export = tmp_path / "data" / "exports" / "latest"
        until(export.exists, what="the export of all images", timeout_s=500)
        daemon.terminate()
    loaded = tf.saved_model.load(str(export / "saved_model"))
    fresh, truth = _images(20, seed=1)
    rows = fresh.reshape(20, -1)
    answers = loaded.signatures["serving_default"](inputs=tf.constant(rows))["probabilities"].numpy()
    assert (answers.argmax(axis=1) == truth).mean() >= 0.9

    program = tmp_path / "learnd_edge"
    build = ["sh", str(ROOT / "deploy" / "cpp" / "build.sh"), str(program), sys.executable]
    subprocess.run(build, check=True, capture_output=True)
    lines = "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in rows)
    done = subprocess.run(
        [str(program), "predict", str(export)], input=lines, capture_output=True, text=True, check=True, timeout=300
    )
    said = np.array([[float(word) for word in line.split()[1:]] for line in done.stdout.splitlines()], np.float32)
    np.testing.assert_allclose(said, answers, rtol=1e-4, atol=1e-6)
