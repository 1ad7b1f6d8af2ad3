"""Fixtures that several files share and that take long to make."""

from pathlib import Path

import pytest

from tests.stored_models import write_old_files


@pytest.fixture(scope="session")
def old_keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that the real Keras 2 wrote; see `tests.legacy_models`."""
    return write_old_files(tmp_path_factory.mktemp("keras-2"))
