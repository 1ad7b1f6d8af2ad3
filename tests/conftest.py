"""Fixtures that every test may take."""

from pathlib import Path

import pytest

from tests.certificates import Files, make_files
from tests.stored_models import write_old_files

pytest_plugins = ["learnd.testing.kafka"]


@pytest.fixture(scope="session")
def old_keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that the real Keras 2 wrote; see `tests.legacy_models`."""
    return write_old_files(tmp_path_factory.mktemp("keras-2"))


@pytest.fixture(scope="session")
def access_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates and a password."""
    return make_files(tmp_path_factory.mktemp("certificates"))
