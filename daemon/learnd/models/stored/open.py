"""The way in: a path, whatever lies there, as a Keras model that learns."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from learnd.models.stored.architecture import model_of_json_file
from learnd.models.stored.archive import MAGIC, open_archive
from learnd.models.stored.checkpoint import open_checkpoint
from learnd.models.stored.custom import known
from learnd.models.stored.hdf5 import SIGNATURE, open_hdf5, wanted
from learnd.models.stored.model import StoredModel, refuse
from learnd.models.stored.safety import refuse_pickle
from learnd.models.stored.signature import open_saved_model

FORMATS = (
    ".keras, .h5, .weights.h5, a SavedModel folder, or the prefix of a tf.train.Checkpoint (its name without .index)"
)


def open_stored(settings: Any, *, architecture: Callable[[], Any] | None) -> StoredModel:
    """The model at ``settings.load``, told by its content and not by its name.

    Parameters
    ----------
    settings : has ``load``, ``code`` and ``allow_lambda``, and may have ``architecture``, ``signature`` and ``output``;
        see `learnd.models.settings.LoadSettings`
    architecture : builds the model for a file that holds weights alone; `settings.architecture` comes before it

    Raises
    ------
    ConfigError
        for whatever cannot be opened: what it is, where it lies, what to do.
    """
    with warnings.catch_warnings():
        # Keras' own remarks on optimizers that it does not restore; what counts of them is in the notes.
        warnings.simplefilter("ignore")
        return _opened(settings, architecture)


def _opened(settings: Any, architecture: Callable[[], Any] | None) -> StoredModel:
    path = Path(settings.load)
    build = _architecture(settings, architecture)
    if path.is_dir():
        return _open_folder(path, settings, build)
    if path.is_file():
        return _open_file(path, settings, build)
    if Path(f"{path}.index").is_file():
        return _open_prefix(path, settings, build)
    return refuse(f"{path} does not exist")


def _open_file(path: Path, settings: Any, build: Callable[[], Any] | None) -> StoredModel:
    with path.open("rb") as file:
        head = file.read(8)
    refuse_pickle(path, head)
    if head.startswith(MAGIC):
        return open_archive(path, path, settings.code, settings.allow_lambda)
    if head == SIGNATURE:
        return open_hdf5(path, settings.code, settings.allow_lambda, build)
    if path.suffix == ".index" or ".data-" in path.name:
        # One of a checkpoint's files: its prefix is meant.
        return _open_prefix(path.with_suffix(""), settings, build)
    if path.name == "saved_model.pb":
        return refuse(f"{path} is one file of a SavedModel; name its folder, {path.parent}")
    if not head:
        return refuse(f"{path} is empty")
    return refuse(f"{path} is none of the formats that can be loaded: {FORMATS}")


def _open_folder(path: Path, settings: Any, build: Callable[[], Any] | None) -> StoredModel:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        signature = getattr(settings, "signature", "serving_default")
        return open_saved_model(path, signature=signature, output=getattr(settings, "output", None))
    prefixes = sorted(path.glob("*.index"), key=lambda index: index.stat().st_mtime)
    if prefixes:
        names = ", ".join(str(index.with_suffix("")) for index in prefixes[-3:])
        return refuse(f"{path} is a folder of checkpoints; name one of them without its suffix, such as {names}")
    if not any(path.iterdir()):
        return refuse(f"{path} is an empty folder")
    return refuse(f"{path} is a folder without a saved_model.pb; what can be loaded: {FORMATS}")


def _open_prefix(path: Path, settings: Any, build: Callable[[], Any] | None) -> StoredModel:
    model = wanted(path, build)
    with known(settings.code):
        return open_checkpoint(path, model)


def _architecture(settings: Any, given: Callable[[], Any] | None) -> Callable[[], Any] | None:
    path = getattr(settings, "architecture", None)
    if path is None:
        return given
    return lambda: model_of_json_file(Path(path), settings.code, settings.allow_lambda)
