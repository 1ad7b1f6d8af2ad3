"""Checks of the files that a configuration names: missing files and columns, a data_dir of another model."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from learnd.checkpoint import files as checkpoint_files
from learnd.config.settings import Settings
from learnd.core.errors import ConfigError, Problem

_NOT_COMPARED = ("scaling",)
"""Keys of the fingerprint that depend on a loaded model, which is not opened here; the start compares them."""


def check_surroundings(settings: Settings) -> None:
    """Compare *settings* with the files that they name. TensorFlow is not imported, and no broker is asked.

    Raises
    ------
    ConfigError
        with every problem.
    """
    problems = [*_missing_files(settings), *_other_model(settings)]
    if not any(problem.path == "source.path" for problem in problems):
        problems += _wrong_columns(settings)
    if problems:
        raise ConfigError(*problems)


def _missing_files(settings: Settings) -> Iterator[Problem]:
    here = Path.cwd()
    path = settings.source.path_read
    if path is not None and (path.is_dir() or not path.exists()):  # a pipe is as good as a file
        kind = "is a folder" if path.exists() else "does not exist"
        yield Problem("source.path", f"{path} {kind}; relative paths are relative to the working directory, {here}")
    model = settings.model
    copied = (settings.data_dir / "model").is_dir()
    for key, loaded in (("load", model.load), ("architecture", model.architecture_file)):
        if loaded is not None and not copied and not loaded.exists() and not Path(f"{loaded}.index").is_file():
            yield Problem(f"model.{key}", f"{loaded} does not exist; name a model file, a folder or a prefix")
    for section in ("source", "export"):
        for key, value in _files(getattr(settings, section)):
            if not value.exists():
                yield Problem(f"{section}.{key}", f"{value} does not exist (working directory: {here})")


def _files(section: BaseModel) -> Iterator[tuple[str, Path]]:
    """Yield the options that name a file which must exist: keys, certificates, passwords."""
    for key, value in section:
        if isinstance(value, Path) and key.endswith("file"):
            yield key, value


def _other_model(settings: Settings) -> Iterator[Problem]:
    """Yield what differs between *settings* and the model whose checkpoints the data_dir holds."""
    saved = checkpoint_files.newest_fingerprint(settings.data_dir / "checkpoints")
    if saved is None:
        return
    expected = {key: value for key, value in settings.fingerprint().items() if key not in _NOT_COMPARED}
    difference = checkpoint_files.first_difference(saved, expected)
    if difference is not None:
        yield Problem(difference[0], checkpoint_files.other_configuration(settings.data_dir, *difference))


def _wrong_columns(settings: Settings) -> tuple[Problem, ...]:
    """Return the fields that are no columns of the file that *settings* name."""
    if settings.source.path_read is None or not settings.decode.needs_lines:
        return ()
    from learnd.wiring.stream import make_decoder  # imports NumPy

    try:
        make_decoder(settings)
    except ConfigError as error:
        return error.problems
    return ()
