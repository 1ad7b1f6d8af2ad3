"""``learnd promote``: makes one export the newest one."""

import argparse
import re

from learnd.cli.promotion import Place, finish
from learnd.core.errors import UsageError
from learnd.export import manifest


def execute(options: argparse.Namespace) -> int:
    """Make the export that *options* name the newest one; return the exit code."""
    path, number = options.path, options.number
    if number is None:
        folder = path.resolve()
        if not (folder / manifest.FILE_NAME).is_file() or not re.fullmatch("[1-9][0-9]*", folder.name):
            raise UsageError(f"{path} is not the folder of an export; name one, or give the number after the path")
        path, number = folder.parent, int(folder.name)
    place = Place(path)
    return finish(place, place.republisher.promote(number), options)
