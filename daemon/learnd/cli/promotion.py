"""The common part of ``learnd rollback`` and ``learnd promote``."""

import argparse
import time
from pathlib import Path

from learnd.config.loader import load
from learnd.core.errors import ExportError, UsageError
from learnd.export import versions
from learnd.export.republish import Republished, Republisher
from learnd.export.settings import UploadSettings

_UPLOAD_S = 600.0


class Place:
    """The folder of exports that a command line names: by a configuration, a data_dir, or the folder itself.

    Raises
    ------
    UsageError
        if it is none of them.
    ConfigError
        if it is a configuration with mistakes.
    """

    def __init__(self, path: Path) -> None:
        self.upload: UploadSettings | None = None
        key: Path | None = None
        if path.is_file():
            settings = load(path)
            self.directory = settings.data_dir / "exports"
            self.upload, key = settings.export.upload, settings.export.signing_key_file
        else:
            self.directory = path / "exports" if (path / "exports").is_dir() else path
        if not versions.numbers(self.directory):
            raise UsageError(f"{path}: {self.directory} has no exports; name a configuration or a folder of exports")
        self.republisher = Republisher(self.directory, key)


def finish(place: Place, done: Republished, options: argparse.Namespace) -> int:
    """Hold or release automatic exports, upload if that is configured, and print the outcome; return the exit code.

    Raises
    ------
    ExportError
        if the upload failed.
    """
    for number in done.passed_over:
        print(f"passed over {number}: it is damaged")
    latest = place.directory / versions.LATEST
    if done.number == done.original:
        print(f"{done.number} is the newest export; {latest} names it")
    else:
        print(f"published {done.original} again as {done.number}; {latest} names it")
    was_held = versions.read_hold(place.directory) is not None
    if options.hold:
        versions.write_hold(place.directory, done.number)
        print("held: nothing is published automatically until the next rollback or promote without --hold")
    elif was_held:
        versions.write_hold(place.directory, None)
        print("released: exports are published automatically again")
    if place.upload is not None:
        _upload(place.upload, place.directory / str(done.number))
    return 0


def _upload(settings: UploadSettings, folder: Path) -> None:
    from learnd.export.upload import Uploader

    uploader = Uploader(settings, clock=time.monotonic)
    uploader.begin(folder)
    finished = uploader.wait(_UPLOAD_S)
    outcome = uploader.outcome()
    if not finished or (outcome is not None and outcome.error):
        reason = outcome.error if outcome is not None else f"no end after {_UPLOAD_S:.0f} s"
        raise ExportError(f"{folder} is published, but its upload failed: {reason}; run the same command again")
    print(f"uploaded {folder.name} to {settings.url}")
