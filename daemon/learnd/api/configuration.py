"""Configurations from a file, a text or a dict."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learnd.config import loader
from learnd.config.settings import Settings


def load(path: str | Path) -> Settings:
    """Return the settings in the YAML file at *path*, the same file that ``learnd run`` takes.

    ``${VAR}`` is replaced with the environment variable. Relative paths in the file are relative to the working
    directory.

    Raises
    ------
    ConfigError
        if anything is wrong; it holds every problem in the file, each with its line.

    >>> load("no-such-file.yaml")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    learnd.core.errors.ConfigError: no-such-file.yaml: cannot be read (...); `learnd init` writes an example...
    """
    return loader.load(Path(path))


def loads(text: str) -> Settings:
    """Return the settings in YAML *text*; see `load`.

    Raises
    ------
    ConfigError
        if anything is wrong.

    >>> settings = loads('''
    ... source: {kind: simulator}
    ... features: [temperature, pressure]
    ... target: wear
    ... model: {kind: linear}
    ... ''')
    >>> settings.model.kind, settings.data_dir.name, settings.feature_names
    ('linear', 'data', ('temperature', 'pressure'))
    """
    return loader.loads(text, environ=os.environ)


def from_dict(values: Mapping[str, Any]) -> Settings:
    """Return the settings in *values*: the keys of the YAML file, with dicts for its sections.

    A path may be a `pathlib.Path`. ``${VAR}`` is not replaced here. To change a few settings, change the dict and call
    this again: settings are frozen.

    Raises
    ------
    ConfigError
        if anything is wrong; its problems name the key, without a file and a line.

    >>> base = {"source": {"kind": "simulator"}, "features": ["temperature"], "target": "wear"}
    >>> from_dict({**base, "model": {"kind": "linear"}}).target
    ['wear']
    >>> from_dict({**base, "model": {"kind": "liner"}})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    learnd.core.errors.ConfigError: model.kind: ...
    """
    return loader.from_values(values)
