"""What is published is copied to a store; what the store points at is whole, and no trouble there reaches learning."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import tensorflow as tf
from fsspec.implementations.memory import MemoryFileSystem

from learnd.core import crash_points
from learnd.core.errors import ConfigError
from learnd.export import audit, manifest
from learnd.export.settings import UploadSettings
from learnd.export.upload import Uploaded, Uploader
from learnd.export.versions import YOUNG_S
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.integration.test_publishing import PUBLISHER
from tests.support.helpers import SAVED_MODEL, config_text, readings, settings
from tests.unit.test_config import _problems
from tests.unit.test_loop import _learn_until
from tests.unit.test_publish import _Child, _export, _exporter, _snapshot
from tests.unit.test_versions import Clock

pytestmark = pytest.mark.usefixtures("shared_traces")

SECRET = "canary-51823-secret"


class FaultyStore(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store in memory that notes what is written, and calls `before` ahead of each write: to fail, or to wait."""

    protocol = "faulty"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    written: list[str] = []
    before: Callable[[str], None] = staticmethod(lambda path: None)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://")))

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self._note(rpath)
        super().put_file(lpath, rpath, **options)

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._note(path)
        super().pipe_file(path, value, **options)

    def _note(self, path: str) -> None:
        FaultyStore.before(path)
        FaultyStore.written.append(path.partition("exports/")[2])


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """The store behind `faulty://bucket/exports`, empty."""
    fsspec.register_implementation("faulty", FaultyStore, clobber=True)
    for name, value in (("store", {}), ("pseudo_dirs", [""]), ("written", [])):
        monkeypatch.setattr(FaultyStore, name, value)
    monkeypatch.setattr(FaultyStore, "before", staticmethod(lambda path: None))
    yield FaultyStore()


def _fail_at(count: int) -> Callable[[str], None]:
    """A store whose write of that number, from 0, fails; as do all after it."""
    writes: list[str] = []

    def before(path: str) -> None:
        writes.append(path)
        if len(writes) > count:
            raise ConnectionError("reset by peer")

    return before


def _version(folder: Path, number: int) -> Path:
    """A small version with files in folders and a manifest, as an export has them."""
    path = folder / str(number)
    (path / "saved_model" / "variables").mkdir(parents=True)
    for name in ("MODEL_CARD.md", "model.tflite", "saved_model/saved_model.pb", "saved_model/variables/data"):
        (path / name).write_bytes(os.urandom(100))
    (path / manifest.SIGNATURE_NAME).write_bytes(b"s" * 64)
    (path / manifest.FILE_NAME).write_text(json.dumps({"number": number, "files": manifest.hash_files(path)}))
    return path


def _upload(uploader: Uploader, folder: Path) -> Uploaded | None:
    uploader.begin(folder)
    assert uploader.wait(60)
    return uploader.outcome()


def _whole(store: Any, root: str, number: int, original: Path) -> bool:
    """Whether the store's version *number* is *original*, file by file."""
    names = [path.relative_to(original).as_posix() for path in original.rglob("*") if path.is_file()]
    return all(
        store.exists(f"{root}/{number}/{name}")
        and store.cat_file(f"{root}/{number}/{name}") == (original / name).read_bytes()
        for name in names
    )


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_an_export_arrives_whole_and_latest_names_it(protocol: str, tmp_path: Path) -> None:
    """In fsspec's own file systems; the copy passes `inspect --verify`."""
    chosen = settings(tmp_path / "data", export=SAVED_MODEL)
    pipeline = make_pipeline(chosen)
    url = f"{protocol}://{tmp_path}/there"
    maker = _exporter(tmp_path / "exports", chosen, pipeline, _Child())
    maker._uploader = Uploader(UploadSettings(url=url))
    for number in (1, 2):
        assert _export(maker, _snapshot(chosen, pipeline)).error == ""
        uploaded = maker.uploaded()
        assert uploaded is not None
        assert (uploaded.number, uploaded.error) == (number, "")
    store, root = fsspec.core.url_to_fs(url)
    assert store.cat_file(f"{root}/latest") == b"2\n"
    names = sorted(str(path).rstrip("/").rpartition("/")[2] for path in store.ls(root, detail=False))
    assert names == ["1", "2", "latest"]
    store.get(f"{root}/2", str(tmp_path / "back"), recursive=True)
    tf.saved_model.load(str(tmp_path / "back"))  # where there are no links, TensorFlow Serving finds files
    assert audit.audit(tmp_path / "back").sound


def test_the_manifest_comes_after_the_files_and_the_pointer_after_all(tmp_path: Path, store: FaultyStore) -> None:
    """Who sees a manifest, or follows the pointer, finds everything."""
    uploaded = _upload(Uploader(UploadSettings(url="faulty://bucket/exports")), _version(tmp_path, 7))
    assert uploaded is not None
    assert uploaded.error == ""
    assert store.written[-3:] == ["7/learnd.json.sig", "7/learnd.json", "latest"]
    assert len(store.written) == 7


@pytest.mark.parametrize("count", range(7))
def test_an_upload_that_breaks_off_anywhere_is_told_and_made_up_for(
    count: int, tmp_path: Path, store: FaultyStore
) -> None:
    """The pointer stays with a whole version; a restart completes the one that broke off, once."""
    settings_ = UploadSettings(url="faulty://bucket/exports")
    first, second = _version(tmp_path, 7), _version(tmp_path, 8)
    _upload(Uploader(settings_), first)
    FaultyStore.before = staticmethod(_fail_at(count))
    broken = _upload(Uploader(settings_), second)
    assert broken is not None
    assert (broken.number, broken.error) == (8, "ConnectionError: reset by peer")
    assert store.cat_file("/bucket/exports/latest") == b"7\n"
    assert _whole(store, "/bucket/exports", 7, first)
    FaultyStore.before = staticmethod(lambda path: None)
    again = _upload(Uploader(settings_), second)
    assert again is not None
    assert again.error == ""
    assert store.cat_file("/bucket/exports/latest") == b"8\n"
    assert _whole(store, "/bucket/exports", 8, second)
    written = len(store.written)
    assert _upload(Uploader(settings_), second) is None, "nothing was left to do"
    assert len(store.written) == written


def test_a_file_that_arrives_cut_off_is_noticed(tmp_path: Path, store: FaultyStore, monkeypatch: Any) -> None:
    """By its size, before anything points at it."""
    monkeypatch.setattr(FaultyStore, "size", lambda self, path: 99)
    uploaded = _upload(Uploader(UploadSettings(url="faulty://bucket/exports")), _version(tmp_path, 7))
    assert uploaded is not None
    assert "has 99 bytes, not 100" in uploaded.error
    assert not store.exists("/bucket/exports/latest")


def test_a_store_that_hangs_holds_no_export_up_and_the_newest_wins(tmp_path: Path, store: FaultyStore) -> None:
    """Local versions go on coming; of those that could not be sent meanwhile only the newest is, and it is spared."""
    chosen = settings(tmp_path / "data", export={**SAVED_MODEL, "keep": 1})
    pipeline = make_pipeline(chosen)
    clock = Clock()
    maker = _exporter(tmp_path / "exports", chosen, pipeline, _Child(), clock)
    maker._uploader = uploader = Uploader(UploadSettings(url="faulty://bucket/exports"))
    hanging, release = threading.Event(), threading.Event()

    def hang(path: str) -> None:
        hanging.set()
        assert release.wait(60)

    FaultyStore.before = staticmethod(hang)
    for number in (1, 2, 3):
        maker.begin(_snapshot(chosen, pipeline))
        assert maker._thread is not None
        maker._thread.join(60)
        outcome = maker.outcome()
        assert outcome is not None
        assert (outcome.number, outcome.error) == (number, "")
        assert hanging.wait(60)
        clock.at_s += YOUNG_S
    maker._prune()
    assert maker.numbers() == [1, 3], "the one that is being read is not pruned"
    assert uploader.needed() == [1, 3]
    assert not maker.wait(0.01)
    release.set()
    assert maker.wait(60)
    assert [uploaded.number for uploaded in iter(maker.uploaded, None)] == [1, 3]
    assert store.cat_file("/bucket/exports/latest") == b"3\n"
    assert not store.exists("/bucket/exports/2")


def test_after_a_restored_backup_the_store_tells_which_numbers_are_used(tmp_path: Path, store: FaultyStore) -> None:
    """Even where the clock is wrong: nothing there is overwritten, and the next export goes above it."""
    chosen = settings(tmp_path / "data", export=SAVED_MODEL)
    pipeline = make_pipeline(chosen)
    others = _version(tmp_path / "before", 41)
    _upload(Uploader(UploadSettings(url="faulty://bucket/exports")), others)
    maker = _exporter(tmp_path / "exports", chosen, pipeline, _Child())
    maker._uploader = Uploader(UploadSettings(url="faulty://bucket/exports"))
    assert _export(maker, _snapshot(chosen, pipeline)).number == 1
    refused = maker.uploaded()
    assert refused is not None
    assert "holds 41, which is newer than 1" in refused.error
    assert store.cat_file("/bucket/exports/latest") == b"41\n"
    assert _export(maker, _snapshot(chosen, pipeline)).number == 42
    assert store.cat_file("/bucket/exports/latest") == b"42\n"
    assert _whole(store, "/bucket/exports", 41, others)


def test_a_start_asks_the_store_before_the_first_export(tmp_path: Path, store: FaultyStore) -> None:
    """Also where nothing is left here: the disk was lost, and the clock is wrong."""
    chosen = settings(tmp_path / "data", export=SAVED_MODEL)
    pipeline = make_pipeline(chosen)
    _upload(Uploader(UploadSettings(url="faulty://bucket/exports")), _version(tmp_path / "before", 41))
    maker = _exporter(tmp_path / "exports", chosen, pipeline, _Child())
    maker._uploader = Uploader(UploadSettings(url="faulty://bucket/exports"))
    maker.open()
    assert maker.wait(60)
    assert maker.uploaded() is None
    assert _export(maker, _snapshot(chosen, pipeline)).number == 42


def test_another_export_of_the_same_number_is_never_overwritten(tmp_path: Path, store: FaultyStore) -> None:
    """Somebody has it already; ours is refused."""
    uploader = Uploader(UploadSettings(url="faulty://bucket/exports"))
    theirs = _version(tmp_path / "theirs", 5)
    _upload(uploader, theirs)
    refused = _upload(uploader, _version(tmp_path / "ours", 5))
    assert refused is not None
    assert "holds another export 5" in refused.error
    assert _whole(store, "/bucket/exports", 5, theirs)


def test_what_was_published_before_a_start_is_uploaded_at_the_start(tmp_path: Path, store: FaultyStore) -> None:
    """The last export of a stop may have come too late for it."""
    chosen = settings(tmp_path / "data", export=SAVED_MODEL)
    pipeline = make_pipeline(chosen)
    assert _export(_exporter(tmp_path / "exports", chosen, pipeline, _Child()), _snapshot(chosen, pipeline)).number == 1
    again = _exporter(tmp_path / "exports", chosen, pipeline, _Child())
    again._uploader = Uploader(UploadSettings(url="faulty://bucket/exports"))
    again.open()
    assert again.wait(60)
    assert store.cat_file("/bucket/exports/latest") == b"1\n"


def test_learning_and_publishing_go_on_while_uploads_fail(tmp_path: Path, store: FaultyStore) -> None:
    """Each failure is counted; once the store is back so is the upload."""
    chosen = settings(tmp_path / "data", export={"every_samples": 10, "upload": {"url": "faulty://bucket/exports"}})
    pipeline = make_pipeline(chosen, source=MemorySource(readings(60)))
    pipeline.publishing.exporter._build = _Child()  # type: ignore[method-assign]
    FaultyStore.before = staticmethod(_fail_at(0))
    value = pipeline.metrics.registry.get_sample_value
    assert pipeline.open()
    try:
        _learn_until(pipeline, 60)
        for failures, uploads in ((1, 0), (1, 1)):
            pipeline.publishing._started_samples = 0
            pipeline.export()
            assert pipeline.publishing.exporter.wait(60)
            pipeline.collect_outcomes()
            assert value("learnd_upload_failures_total") == failures
            assert value("learnd_uploads_total") == uploads
            FaultyStore.before = staticmethod(lambda path: None)
        assert value("learnd_exports_total") == 2
        assert value("learnd_export_failures_total") == 0
        assert value("learnd_uploaded_number") == pipeline.publishing.exporter.numbers()[-1]
        assert value("learnd_upload_last_success_timestamp_seconds") > 0  # type: ignore[operator]
    finally:
        pipeline.close()


def test_no_secret_is_in_what_is_told_of_a_failure(
    tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one of the options nor one that a library takes from the environment, also inside a URL."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=me;AccountKey=kk+kk/kk==;x=y")

    def refuse(path: str) -> None:
        raise PermissionError(f"403 for {SECRET}, https://x/?sig=kk%2Bkk%2Fkk%3D%3D and kk+kk/kk==\nmore {SECRET}")

    FaultyStore.before = staticmethod(refuse)
    chosen = UploadSettings.model_validate({"url": "faulty://bucket/exports", "options": {"secret": SECRET}})
    uploaded = _upload(Uploader(chosen), _version(tmp_path, 1))
    assert uploaded is not None
    assert uploaded.error == "PermissionError: 403 for ***, https://x/?sig=*** and ***"
    assert SECRET not in repr(chosen) + chosen.model_dump_json()


@pytest.mark.parametrize(
    ("upload", "expected"),
    [
        ({"url": f"s3://me:{SECRET}@bucket/x"}, "put them into options"),
        ({"url": f"s3:/{SECRET}"}, "is not a URL with a path"),
        ({"url": "s3://b/x", "options": {"secret": [SECRET]}}, "export.upload.options.secret"),
    ],
)
def test_a_place_that_is_wrong_is_told_without_its_secret(
    tmp_path: Path, upload: dict[str, Any], expected: str
) -> None:
    """Each with the key of the configuration."""
    (problem,) = set(_problems(config_text(tmp_path, export={"upload": upload}))[:1])
    assert expected in problem
    assert SECRET not in problem


def test_what_speaks_to_the_store_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before the stream is joined, with the extra to install."""

    def missing(protocol: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    with pytest.raises(ConfigError, match="is not a file system that fsspec knows"):
        Uploader(UploadSettings(url="nonsense://b/x"))
    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ConfigError, match=r"pip install 'learnd\[s3\]'") as caught:
        Uploader(UploadSettings(url="s3://b/x"))
    assert caught.value.problems[0].path == "export.upload.url"


@pytest.mark.parametrize("point", ["upload.before-manifest", "upload.before-pointer"])
def test_a_kill_in_an_upload_leaves_the_store_pointing_at_a_whole_version(point: str, tmp_path: Path) -> None:
    """A process with a store on disk; the next start completes what was cut off."""
    there = tmp_path / "there"

    def live(count: int, **environ: str) -> int:
        arguments = [str(tmp_path / "exports"), "60", str(count), f"file://{there}"]
        command = [sys.executable, "-c", PUBLISHER, *arguments]
        done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    assert live(1) == 0
    first = (there / "latest").read_text().strip()
    assert live(1, **{crash_points.VARIABLE: point}) == -signal.SIGKILL
    assert (there / "latest").read_text().strip() == first
    assert audit.audit(there / first).changed == ()
    assert live(1) == 0
    newest = (there / "latest").read_text().strip()
    assert int(newest) > int(first)
    for version in (path for path in there.iterdir() if path.name.isdigit()):
        original = tmp_path / "exports" / version.name
        for path in (p for p in original.rglob("*") if p.is_file()):
            assert (version / path.relative_to(original)).read_bytes() == path.read_bytes()
