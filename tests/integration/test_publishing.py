"""Somebody lists the exports every millisecond and loads what they see, while those who publish are killed."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest
import tensorflow as tf

from learnd.core import crash_points
from learnd.export.versions import LATEST, YOUNG_S
from tests.support.helpers import SAVED_MODEL, WAIT_S, Daemon, config_text, run_cli, until
from tests.unit.test_versions import POINTS

EXPORTS = 200
LISTED_EVERY_S = 0.001
QUICK_YOUNG_S = 1.0
"""In place of a minute, so that 200 exports within seconds are pruned too."""

PUBLISHER = """\
# FOLDER YOUNG_S COUNT [URL]: so many exports into a folder, one right after the other, each copied to the store.
import json, os, sys
from pathlib import Path
import numpy as np
from learnd.core.fsync import write_text
from learnd.export import manifest
from learnd.export import publisher, request
from learnd.export import versions
from learnd.export.settings import ExportSettings, UploadSettings
from learnd.export.upload import Uploader
from learnd.core.types import PrequentialScores, TopicPartition
from learnd.core.snapshot import Snapshot

versions.YOUNG_S = float(sys.argv[2])
versions.MOST_YOUNG = 100  # in that time; they come much quicker here


def build(building, urgent):  # in place of the child process, whose TensorFlow takes seconds
    (building / "saved_model" / "variables").mkdir(parents=True)
    for name in ("model.tflite", "saved_model/saved_model.pb", "saved_model/variables/variables.data"):
        (building / name).write_bytes(os.urandom(5000))
    files = {p: f for p, f in manifest.hash_files(building).items() if not p.startswith(request.REQUEST)}
    write_text(building / manifest.FILE_NAME, json.dumps({"samples": 1, "files": files, "unavailable": {}}))


exporter = publisher.Exporter(
    Path(sys.argv[1]), ExportSettings(keep=3), answer=lambda x, w: {}, recipe={}, description={},
    uploader=Uploader(UploadSettings(url=sys.argv[4])) if sys.argv[4:] else None,
)
exporter._build = build
exporter.open()
one = np.ones((1, 1), np.float32)
for samples in range(int(sys.argv[3])):
    signal = PrequentialScores(1, 0.0, 0.0, 0.0, 0.0)
    exporter.begin(Snapshot((one,), one, samples, 1, {TopicPartition("t", 0): 1}, 0.0, 0.0, signal))
    exporter.wait(60)
    outcome = exporter.outcome()
    assert not outcome.error, outcome
"""


class Reader:
    """Lists a folder of exports every millisecond and loads what is there, as its users do; notes what fails.

    What has just appeared, and what `latest` names, has to load. An older version may be pruned under the
    reader's hands, but then it is gone from the list too.
    """

    def __init__(self, folder: Path, load: Callable[[Path], str], *, young_s: float, listed_every_s: float) -> None:
        self._folder = folder
        self._load = load
        self._young_s = young_s
        self._listed_every_s = listed_every_s
        self._first_seen_s: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.contents: dict[int, str] = {}
        """What `load` gave for each number that was ever seen."""
        self.failures: list[str] = []
        self.loads = self.listings = self.vanished = 0

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        newest = 0
        draw = random.Random(7)
        while not self._stop.wait(self._listed_every_s):
            try:
                names = [path.name for path in self._folder.iterdir()]
            except FileNotFoundError:
                continue
            self.listings += 1
            seen = sorted(int(name) for name in names if name.isdigit())
            pointed = self._pointed()
            if LATEST in names and pointed < newest:
                self.failures.append(f"latest went from {newest} back to {pointed}")
            newest = max(newest, pointed)
            new = [number for number in seen if number not in self.contents]
            if new and self.contents and min(new) < max(self.contents):
                self.failures.append(f"{new} appeared after {max(self.contents)}")
            older = [draw.choice(seen)] if seen else []
            for number in dict.fromkeys([*new, *([pointed] if pointed else []), *older]):
                self._check(number)

    def _pointed(self) -> int:
        try:
            return int(str((self._folder / LATEST).readlink()))
        except FileNotFoundError:
            return 0

    def _check(self, number: int) -> None:
        first_seen_s = self._first_seen_s.setdefault(number, time.monotonic())
        path = self._folder / str(number)
        self.loads += 1
        try:
            content = self._load(path)
        except Exception as error:
            young = time.monotonic() - first_seen_s < self._young_s
            if young or path.exists():
                self.failures.append(f"{number} does not load: {type(error).__name__}: {error}")
            self.vanished += 1
            return
        if self.contents.setdefault(number, content) != content:
            self.failures.append(f"{number} is another one than before")


def _whole(path: Path) -> str:
    """The hash of an export's manifest, if every file that it names is there with its hash."""
    text = (path / "learnd.json").read_bytes()
    files = json.loads(text)["files"]
    assert files
    for name, entry in files.items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == entry["sha256"], name
    return hashlib.sha256(text).hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_hundred_exports_with_kills_are_whole_whenever_they_are_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL at every named point and by chance, pruning all the while: nothing half there, no number twice."""
    folder = tmp_path / "exports"
    folder.mkdir()
    draw = random.Random(11)
    kills: dict[str, int] = {}
    with Reader(folder, _whole, young_s=QUICK_YOUNG_S, listed_every_s=LISTED_EVERY_S) as reader:
        while len(reader.contents) < EXPORTS or set(kills) < {*POINTS, "by chance"}:
            point = draw.choice([*POINTS, None])
            environ = {**os.environ, **({crash_points.VARIABLE: f"{point}:{draw.randint(1, 15)}"} if point else {})}
            command = [sys.executable, "-c", PUBLISHER, str(folder), str(QUICK_YOUNG_S), "30"]
            publisher = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE)
            if point is None:
                before = len(reader.contents)
                until(lambda before=before: len(reader.contents) > before, what="an export")  # type: ignore[misc]
                time.sleep(draw.uniform(0.0, 0.2))
                publisher.kill()
            _, errors = publisher.communicate()
            assert publisher.returncode in (0, -signal.SIGKILL), errors
            if publisher.returncode:
                kills[point or "by chance"] = kills.get(point or "by chance", 0) + 1
    assert reader.failures == []
    left = [path for path in folder.iterdir() if path.name.isdigit()]
    assert len(left) < len(reader.contents) / 2, "pruned all the while"
    with capsys.disabled():
        print(
            f"\n{len(reader.contents)} exports, {sum(kills.values())} kills {kills}, {reader.listings} listings, "
            f"{reader.loads} loads, {reader.vanished} of them pruned meanwhile, 0 failed"
        )


class _Loads:
    """`_whole`, and at the first sight of a version what its users do with it."""

    def __init__(self) -> None:
        self._loaded: set[Path] = set()

    def __call__(self, path: Path) -> str:
        if path not in self._loaded:
            tf.saved_model.load(str(path / "saved_model"))
            self._loaded.add(path)
        return _whole(path)


@pytest.mark.slow
def test_real_exports_load_whenever_they_are_seen(tmp_path: Path) -> None:
    """The daemon with its exporting child, killed before and after the rename and before the pointer."""
    config = tmp_path / "config.yaml"
    folder = tmp_path / "data" / "exports"
    sections = {"features": ["temperature"], "target": "wear", "source": {"kind": "simulator", "records": 10_000}}
    config.write_text(config_text(tmp_path / "data", **sections, export=SAVED_MODEL))
    with Reader(folder, _Loads(), young_s=YOUNG_S, listed_every_s=LISTED_EVERY_S) as reader:
        for published, point in enumerate(("before-rename", "before-pointer", "after-rename", None)):
            while not _published_or_killed(config, point):
                pass  # on a busy machine the last export may not be ready in time; the next start makes up for it
            until(lambda wanted=published: len(reader.contents) == wanted, what="the reader")  # type: ignore[misc]
    assert reader.failures == []
    assert (folder / LATEST).readlink() == Path(str(max(reader.contents)))
    left = [".last-number", LATEST, *map(str, reader.contents)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(left)


def _published_or_killed(config: Path, point: str | None) -> bool:
    """One life of the daemon with 500 records; False if its export did not come as far as *point*, or its end."""
    environ = {crash_points.VARIABLE: f"export.{point}"} if point else {}
    with Daemon(config, "--max-records", "500", environ=environ) as daemon:
        status = daemon.process.wait(WAIT_S)
        assert status in (0, -signal.SIGKILL), daemon.log()
        return status != 0 if point else bool(daemon.events("export_published"))


def test_the_daemon_signs_and_uploads_what_it_publishes(tmp_path: Path) -> None:
    """By configuration alone; the copy passes its check, and what is missing there the next start uploads again."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed; it makes the keys here, as `daemon/docs/exports.md` tells users to")
    key, public, there = tmp_path / "key.pem", tmp_path / "key.pub", tmp_path / "there"
    subprocess.run([openssl, "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run([openssl, "pkey", "-in", key, "-pubout", "-out", public], check=True)
    export = {"every_seconds": 3600, "signing_key_file": str(key), "upload": {"url": f"file://{there}"}}
    sections = {"features": ["temperature"], "target": "wear", "source": {"kind": "simulator", "records": 10_000}}
    config = tmp_path / "config.yaml"
    config.write_text(config_text(tmp_path / "data", **sections, export=export))
    while not (there / LATEST).exists():  # on a busy machine the last export may not be ready in time
        with Daemon(config, "--max-records", "500") as daemon:
            daemon.finish()
    number = (there / LATEST).read_text().strip()
    assert number == str((tmp_path / "data" / "exports" / LATEST).readlink())
    assert daemon.events("export_uploaded")[-1]["number"] == int(number)
    checked = run_cli("inspect", str(there / number), "--verify", "--public-key", str(public))
    assert (checked.returncode, json.loads(checked.stdout)["signature"]) == (0, "good"), checked.stderr
    shutil.rmtree(there)
    with Daemon(config, "--max-records", "1", environ={crash_points.VARIABLE: "export.before-rename"}) as daemon:
        daemon.process.wait(WAIT_S)
    assert (there / LATEST).read_text().strip() == number
