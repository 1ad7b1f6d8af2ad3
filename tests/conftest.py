"""Fixtures that every test may take."""

import fcntl
import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.support import compile_cache, prefork
from tests.support.certificates import Files, make_files

pytest_plugins = ["learnd.testing.kafka"]


def pytest_configure(config: pytest.Config) -> None:
    """Before the workers are started: they inherit the folder.

    Log lines of a test's own threads go to standard error: a doctest's output must not depend on who else logs.
    """
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    if (made := compile_cache.make()) is not None:
        config.add_cleanup(made.cleanup)
        compile_cache.compile_alarms()


def pytest_collection_finish() -> None:
    """After the tests' modules were imported: their million objects need not be looked through by each collection."""
    compile_cache.share()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """End the server of forked daemons now: its processor time then counts as that of the suite."""
    prefork.stop()


@pytest.fixture(scope="session")
def old_keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that the real Keras 2 wrote; see `tests.support.legacy_models`. All workers share it."""
    from tests.support.stored_models import write_old_files  # noqa: PLC0415 - TensorFlow, which not every test needs

    if "PYTEST_XDIST_WORKER" not in os.environ:
        return write_old_files(tmp_path_factory.mktemp("keras-2"))
    run = tmp_path_factory.getbasetemp().parent
    with (run / "keras-2.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other worker may be writing them
        folder, done = run / "keras-2", run / "keras-2.done"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write_old_files(folder)
            done.touch()
    return folder


@pytest.fixture(scope="module")
def shared_traces() -> Iterator[None]:
    """Pipelines that are made from the same settings share their traced update; see `tests.support.shared_traces`."""
    from tests.support.shared_traces import sharing  # noqa: PLC0415 - TensorFlow, which not every test needs

    with sharing():
        yield


@pytest.fixture(scope="session")
def access_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates and a password."""
    return make_files(tmp_path_factory.mktemp("certificates"))
