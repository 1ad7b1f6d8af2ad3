"""Entry point of this package: opens a model in any supported format as a Keras model that learns."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from learnd.models.stored.architecture import model_of_json_file
from learnd.models.stored.archive import MAGIC, open_archive
from learnd.models.stored.checkpoint import open_checkpoint
from learnd.models.stored.custom import custom_code
from learnd.models.stored.hdf5 import SIGNATURE, Build, build_architecture, open_hdf5
from learnd.models.stored.model import StoredModel, refuse
from learnd.models.stored.safety import refuse_pickle
from learnd.models.stored.signature import open_saved_model

_FORMATS = (
    ".keras, .h5, .weights.h5, a SavedModel folder, or the prefix of a tf.train.Checkpoint (its name without .index)"
)


class LoadOptions(Protocol):
    """The options that say what to load; see `learnd.models.settings.LoadSettings`.

    May also have ``architecture``, ``signature`` and ``output``.
    """

    @property
    def load(self) -> Path | None: ...

    @property
    def code(self) -> Sequence[str]: ...

    @property
    def allow_lambda(self) -> Sequence[str]: ...


def open_stored(settings: LoadOptions, *, architecture: Build | None) -> StoredModel:
    """Return the model at ``settings.load``. Its content determines the format, its name does not.

    *architecture* builds the model if the file holds only weights. ``settings.architecture`` takes precedence over it.

    Raises
    ------
    ConfigError
        for anything that cannot be opened: what it is, where it is, what to do.
    """
    with warnings.catch_warnings():
        # Keras' own warnings about optimizers that it does not restore. The notes have what matters of them.
        warnings.simplefilter("ignore")
        return _open(settings, architecture)


def _open(settings: LoadOptions, architecture: Build | None) -> StoredModel:
    assert settings.load is not None
    path = Path(settings.load)
    build = _architecture(settings, architecture)
    if path.is_dir():
        return _open_folder(path, settings)
    if path.is_file():
        return _open_file(path, settings, build)
    if Path(f"{path}.index").is_file():
        return _open_prefix(path, settings, build)
    return refuse(f"{path} does not exist")


def _open_file(path: Path, settings: LoadOptions, build: Build | None) -> StoredModel:
    with path.open("rb") as file:
        head = file.read(8)
    refuse_pickle(path, head)
    if head.startswith(MAGIC):
        return open_archive(path, path, settings.code, settings.allow_lambda)
    if head == SIGNATURE:
        return open_hdf5(path, settings.code, settings.allow_lambda, build)
    if path.suffix == ".index" or ".data-" in path.name:
        # One of a checkpoint's files instead of the checkpoint's prefix.
        return _open_prefix(path.with_suffix(""), settings, build)
    if path.name == "saved_model.pb":
        return refuse(f"{path} is one file of a SavedModel; name its folder, {path.parent}")
    if not head:
        return refuse(f"{path} is empty")
    return refuse(f"{path} is none of the formats that can be loaded: {_FORMATS}")


def _open_folder(path: Path, settings: LoadOptions) -> StoredModel:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        signature = getattr(settings, "signature", "serving_default")
        return open_saved_model(path, signature=signature, output=getattr(settings, "output", None))
    if _is_orbax(path):
        return refuse(
            f"{path} is a checkpoint of Orbax, which holds no architecture that can be read without its own library;"
            " load it with Keras, and save the model as .keras"
        )
    prefixes = sorted(path.glob("*.index"), key=lambda index: index.stat().st_mtime)
    if prefixes:
        names = ", ".join(str(index.with_suffix("")) for index in prefixes[-3:])
        return refuse(f"{path} is a folder of checkpoints; name one of them without its suffix, such as {names}")
    if not any(path.iterdir()):
        return refuse(f"{path} is an empty folder")
    return refuse(f"{path} is a folder without a saved_model.pb; these formats can be loaded: {_FORMATS}")


def _is_orbax(path: Path) -> bool:
    """Return whether *path* is a folder that Orbax wrote, or a folder of such folders."""
    return any(next(path.glob(name), None) is not None for name in ("_CHECKPOINT_METADATA", "*/_CHECKPOINT_METADATA"))


def _open_prefix(path: Path, settings: LoadOptions, build: Build | None) -> StoredModel:
    model = build_architecture(path, build)
    with custom_code(settings.code):
        return open_checkpoint(path, model)


def _architecture(settings: LoadOptions, default: Build | None) -> Build | None:
    """Return the function that builds ``settings.architecture``, or *default* if there is none."""
    path = getattr(settings, "architecture", None)
    if path is None:
        return default
    return lambda: model_of_json_file(Path(path), settings.code, settings.allow_lambda)
