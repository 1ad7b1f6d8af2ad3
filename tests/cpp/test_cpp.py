"""The C++ program of ``deploy/cpp`` runs exports, trains them on, and takes up newer ones without a failed call."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.support.exports import learned, rows
from tests.support.helpers import ROOT, until

COMPILER = os.environ.get("CXX", "g++")
pytestmark = pytest.mark.skipif(
    shutil.which(COMPILER) is None,
    reason=f"no C++17 compiler {COMPILER}: apt-get install g++, or name one in the environment's CXX",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled as its users compile it, against the installed TensorFlow's own headers and libraries."""
    target = tmp_path_factory.mktemp("cpp") / "learnd_edge"
    build = ["sh", str(ROOT / "deploy" / "cpp" / "build.sh"), str(target), sys.executable]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one export."""
    data_dir = tmp_path_factory.mktemp("data")
    learned(data_dir, learning={"optimizer": {"kind": "adam", "learning_rate": 0.01}})
    return data_dir / "exports"


def _done(program: Path, *arguments: object, lines: str = "") -> "subprocess.CompletedProcess[str]":
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=False)


def _run(program: Path, *arguments: object, lines: str = "", code: int = 0) -> str:
    done = _done(program, *arguments, lines=lines)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def _told(errors: str, beginning: str) -> list[str]:
    """What the program itself said there; TensorFlow says much."""
    return [line for line in errors.splitlines() if line.startswith(beginning)]


def _lines(numbers: np.ndarray) -> str:
    return "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in numbers)


@pytest.mark.parametrize("bundle", [[], ["--lite"]], ids=["SavedModelBundle", "SavedModelBundleLite"])
def test_it_predicts_what_python_predicts(program: Path, exports: Path, bundle: list[str]) -> None:
    """To the last bit but a few: the same kernels, by another caller."""
    x, _ = rows(20)
    wanted = tf.saved_model.load(str(exports / "latest" / "saved_model")).signatures["serving_default"](
        inputs=tf.constant(x)
    )
    said = _run(program, "predict", exports / "latest", *bundle, lines=_lines(x)).splitlines()
    got = np.array([float(line.removeprefix("prediction ")) for line in said], np.float32)
    np.testing.assert_allclose(got, wanted["prediction"][:, 0], rtol=1e-6)


def test_it_learns_and_python_goes_on_with_what_it_saved(program: Path, exports: Path, tmp_path: Path) -> None:
    """The loss falls; Python and the program itself restore the state, optimizer included, and go on alike."""
    x, y = rows(300)
    lines = _lines(np.concatenate([x, y + 30.0], axis=1))
    first = [float(line) for line in _run(program, "learn", exports / "latest", tmp_path / "a", lines=lines).split()]
    assert np.mean(first[-50:]) < np.mean(first[:50]) / 4
    further = _run(program, "learn", exports / "latest", tmp_path / "b", "--from", tmp_path / "a", lines=lines).split()
    loaded = tf.saved_model.load(str(exports / "latest" / "saved_model"))
    loaded.signatures["restore"](path=tf.constant(str(tmp_path / "a")))
    losses = [
        float(loaded.signatures["learn"](x=tf.constant(a[None]), y=tf.constant(b[None]))["loss"])
        for a, b in zip(x, y + 30.0, strict=True)
    ]
    np.testing.assert_allclose([float(loss) for loss in further], losses, rtol=1e-4, atol=1e-7)
    theirs = tf.train.load_checkpoint(str(tmp_path / "b"))
    for name, tensor in loaded.signatures["weights"]().items():
        np.testing.assert_allclose(theirs.get_tensor(name), tensor, rtol=1e-4, atol=1e-6, err_msg=name)


def test_it_takes_up_newer_versions_without_a_failed_call(program: Path, exports: Path, tmp_path: Path) -> None:
    """Rows come without pause while four versions appear and the old ones go; each is answered, in order."""
    folder = tmp_path / "exports"
    folder.mkdir()
    shutil.copytree(exports / "latest", folder / "1")
    x, _ = rows(1)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([str(program), "follow", str(folder)], text=True, **pipes)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    stop, fed, answers, complaints = threading.Event(), itertools.count(), list[str](), list[str]()

    def feed() -> None:
        while not stop.is_set():
            process.stdin.write(_lines(x))
            next(fed)
        process.stdin.close()

    threads = [
        threading.Thread(target=feed),
        threading.Thread(target=lambda: answers.extend(process.stdout)),
        threading.Thread(target=lambda: complaints.extend(process.stderr)),
    ]
    for thread in threads:
        thread.start()
    try:
        until(lambda: "version 1\n" in complaints, what="version 1")
        for number in range(2, 6):
            shutil.copytree(exports / "latest", folder / f".building-{number}")
            (folder / f".building-{number}").rename(folder / str(number))
            until(lambda number=number: f"version {number}\n" in complaints, what=f"version {number}")
            shutil.rmtree(folder / str(number - 1))
        (folder / "6").mkdir()  # somebody else's doing: learnd publishes nothing that does not load
        until(lambda: any(f"{folder}/6" in line for line in complaints), what="a complaint", timeout_s=10)
        time.sleep(0.5)  # some five more looks
        stop.set()
        assert process.wait(60) == 0
    finally:
        stop.set()
        process.kill()
        for thread in threads:
            thread.join()
    assert len(answers) == next(fed) > 100
    assert len(set(answers)) == 1, "copies of one export"
    told = [line for line in complaints if line.startswith(f"loading {folder}/6/saved_model")]
    assert len(told) == 1, "a version that does not load is told once"


def test_a_line_that_is_no_row_is_named_and_takes_nothing_along(program: Path, exports: Path, tmp_path: Path) -> None:
    """The rows before and behind it are answered, and learned; the status tells."""
    x, y = rows(2)
    wrong = "4 five 6\n1 2\n1 nan 3\n1 1e99 3\n\n1 2 3 -\n1 2 3 1e99\n"
    good = _run(program, "predict", exports / "latest", lines=_lines(x))
    done = _done(program, "predict", exports / "latest", lines=_lines(x[:1]) + wrong + _lines(x[1:]))
    assert (done.returncode, done.stdout) == (65, good)
    assert _told(done.stderr, "line ") == [
        'line 2: "five" is no finite float',
        "line 3: expected 3 numbers, got 2",
        'line 4: "nan" is no finite float',
        'line 5: "1e99" is no finite float',
        "line 6: expected 3 numbers, got 0",
        'line 7: "-" is no finite float',
        'line 8: "1e99" is no finite float',
    ]
    pairs = _lines(np.concatenate([x, y], axis=1))
    for state, lines, code in (("clean", pairs, 0), ("dirty", wrong + pairs, 65)):
        assert _done(program, "learn", exports / "latest", tmp_path / state, lines=lines).returncode == code
    clean, dirty = (tf.train.load_checkpoint(str(tmp_path / state)) for state in ("clean", "dirty"))
    for name in clean.get_variable_to_shape_map():
        np.testing.assert_array_equal(clean.get_tensor(name), dirty.get_tensor(name), err_msg=name)


def test_a_class_that_the_export_does_not_know_takes_nothing_along(program: Path, tmp_path: Path) -> None:
    """What was learned before it and behind it is saved."""
    task = {"kind": "classification", "classes": ["0", "1", "2"]}
    records = [
        json.dumps({"a": i % 7, "b": i % 5, "c": i % 3, "y": i % 3, "k": "m", "t": float(i)}).encode()
        for i in range(60)
    ]
    learned(tmp_path / "data", script=records, task=task)
    lines = "1 2 0 1\n1 2 0 99\n1 2 0 2\n"
    done = _done(program, "learn", tmp_path / "data" / "exports" / "latest", tmp_path / "state", lines=lines)
    assert (done.returncode, len(done.stdout.splitlines())) == (65, 2)
    (told,) = _told(done.stderr, "line 2: learn: ")
    assert "y holds a class number that this export does not know" in told
    assert (tmp_path / "state.index").exists()


def test_wrong_usage_is_named(program: Path, tmp_path: Path) -> None:
    """An export that is not there by its path, a wrong command by the usage."""
    assert str(tmp_path / "gone") in _run(program, "predict", tmp_path / "gone", code=70)
    assert "usage" in _run(program, "retrain", code=64)
