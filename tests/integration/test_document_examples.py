"""The examples of the documents that need TensorFlow or a stream, run word for word."""

import csv
import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.testing.kafka import KafkaCluster
from tests.support.documents import block, read
from tests.support.exports import in_plain_python, learned
from tests.support.helpers import LEARND, WAIT_S

SENSORS = ["temperature", "pressure", "vibration", "current", "speed", "torque"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with `data/press-7`, of two sensors, and `data/six`, of six."""
    folder = tmp_path_factory.mktemp("home")
    for name, sensors, formats in (
        ("press-7", SENSORS[:2], ["saved_model", "tflite_training"]),
        ("six", SENSORS, ["saved_model"]),
    ):
        learned(
            folder / "data" / name,
            simulated=True,
            source={"kind": "simulator", "records": 300},
            decode={"kind": "json", "time": "ts", "key": "machine"},
            features=sensors,
            target="wear",
            export={"formats": formats},
        )
    return folder


@pytest.fixture
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of the examples."""
    monkeypatch.chdir(home)
    yield home


@pytest.mark.usefixtures("there")
def test_the_readmes_export_answers() -> None:
    """Raw readings go in, one wear comes out, with TensorFlow alone."""
    code = block("README.md", "python", "serving_default").text.replace("press-7", "six")
    assert np.isfinite(float(in_plain_python(f"{code}\nprint(float(wear[0, 0]))")))


@pytest.mark.usefixtures("there")
def test_every_signature_of_the_page_on_devices_answers(tmp_path: Path) -> None:
    """The SavedModel predicts, learns a step, and saves what changed."""
    before = """\
    import tensorflow as tf

    rows, targets = tf.constant([[70.0, 100.0], [71.0, 101.0]]), tf.constant([[1.0], [2.0]])
    t, p = rows[:, 0], rows[:, 1]
    """
    code = block("daemon/docs/cpp-and-devices.md", "python", "saved_model.load").text
    code = code.replace('"state"', f'"{tmp_path}/state"')
    assert np.isfinite(float(in_plain_python(f"{textwrap.dedent(before)}\n{code}\nprint(float(loss))")))
    assert list(tmp_path.glob("state*"))


@pytest.mark.usefixtures("there")
def test_a_device_trains_as_the_page_says() -> None:
    """With LiteRT alone."""
    before = """\
    import numpy as np

    rows, targets = np.array([[70.0, 100.0]], np.float32), np.array([[1.0]], np.float32)
    row = rows
    """
    code = block("daemon/docs/cpp-and-devices.md", "python", "Interpreter").text
    after = "print(float(loss['loss']), bool(state), answer['prediction'].shape)"
    loss, *rest = in_plain_python(f"{textwrap.dedent(before)}\n{code}\n{after}").split(maxsplit=1)
    assert np.isfinite(float(loss))
    assert rest == ["True (1, 1)\n"]


def test_the_request_to_tensorflow_serving_is_well_formed() -> None:
    """All of the example but its last line, which needs a server."""
    code, _, last = block("daemon/docs/exports.md", "python", "import grpc").text.rstrip().rpartition("\n")
    assert last.startswith("service.Predict(")
    shown = in_plain_python(f"{code}\nprint(request.inputs['inputs'].tensor_shape.dim[1].size)")
    assert shown == f"{len(SENSORS)}\n"


def test_the_first_model_of_the_readme_is_learned_and_asked(tmp_path: Path) -> None:
    """The commands as they stand, on a file of readings; only the port of the metrics is any free one."""
    random = np.random.default_rng(0)
    with (tmp_path / "boiler.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ts", "inlet", "outlet", "flow", "power"])
        for i in range(400):
            inlet, outlet, flow = 40 + random.normal(), 60 + random.normal(), 5 + random.normal() / 10
            table.writerow([1_700_000_000 + 60 * i, inlet, outlet, flow, (outlet - inlet) * flow])
    newer = {"inlet": 40.0, "outlet": 60.0, "flow": 5.0}
    (tmp_path / "newer.jsonl").write_text(json.dumps(newer) + "\n")
    script = block("README.md", "sh", "cat > boiler.yaml").text.replace("\nYAML\n", "\nhttp: {port: 0}\nYAML\n")
    done = _shell(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["prediction"]["power"] > 0
    assert len((tmp_path / "data" / "boiler-predictions.jsonl").read_text().splitlines()) == 400


def test_the_topic_of_the_readme_is_learned(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """The configuration as it stands, but for the broker's address, the topic's name and the port of the metrics."""
    topic = kafka_broker.create_topic("boiler")
    record = re.search(r"`(\{\"ts\".*\})`", read("README.md"))
    assert record is not None
    kafka_broker.produce(topic, [record.group(1).encode()] * 20 + [b"no record"])
    text = block("README.md", "yaml", "boiler.sensors").text.replace("localhost:9092", kafka_broker.bootstrap)
    text += "http: {port: 0}\nexport: {formats: []}\n"
    (tmp_path / "boiler.yaml").write_text(text.replace("boiler.sensors", topic))
    done = _shell("learnd run boiler.yaml --once --log json", tmp_path)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stderr.splitlines()[-1])
    assert (last["event"], last["samples"], last["rejected"]) == ("finished", 20, {"unparsable": 1})
    assert len((tmp_path / "data" / "boiler-rejects.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow  # tests/integration/test_commands.py has the same end by a shorter way
def test_what_cannot_be_learned_ends_with_nothing_learned_and_status_65(tmp_path: Path) -> None:
    """As the README says of it."""
    (tmp_path / "boiler.csv").write_text("ts,inlet,outlet,flow,power\n" + "1,high,2,3,4\n" * 5)
    config = block("README.md", "sh", "cat > boiler.yaml").text.partition("'YAML'\n")[2].partition("YAML\n")[0]
    (tmp_path / "boiler.yaml").write_text(config + "http: {port: 0}\n")
    done = _shell("learnd run boiler.yaml --log json", tmp_path)
    assert done.returncode == 65, done.stderr
    events: list[dict[str, Any]] = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    nothing, last = events[-2:]
    assert (nothing["event"], nothing["level"], nothing["rejected"]) == ("nothing_learned", "error", {"wrong_type": 5})
    assert nothing["first_rejects"]["wrong_type"].startswith("inlet is 'high', not a number")
    assert (last["event"], last["model_samples"]) == ("finished", 0)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed; apt-get install openssl")
def test_the_commands_for_signatures_check_an_export(tmp_path: Path) -> None:
    """A key made by the page's commands signs, and its public half checks."""
    made = _shell(block("daemon/docs/exports.md", "sh", "genpkey").text, tmp_path)
    assert made.returncode == 0, made.stderr
    data_dir = tmp_path / "data" / "press-7"
    export = {"formats": ["saved_model"], "signing_key_file": str(tmp_path / "key.pem")}
    learned(data_dir, export=export)
    done = _shell(block("daemon/docs/exports.md", "sh", "--public-key").text, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def _shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PATH": f"{LEARND.parent}:{os.environ['PATH']}"}
    command = ["bash", "-ec", script]
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=2 * WAIT_S, check=False
    )
