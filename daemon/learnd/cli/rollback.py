"""``learnd rollback``: publishes the previous export again, as the newest one."""

import argparse

from learnd.cli.promotion import Place, finish


def execute(options: argparse.Namespace) -> int:
    """Publish an older export again as *options* say; return the exit code."""
    place = Place(options.path)
    return finish(place, place.republisher.rollback(options.to), options)
