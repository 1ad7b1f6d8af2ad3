"""The test of Page and Hinkley of the library river."""

from river.drift import PageHinkley

from learnd.drift.detectors.river_detector import RiverDetector
from learnd.drift.detectors.settings import PageHinkleySettings


def make_page_hinkley(settings: PageHinkleySettings, *, seed: int) -> RiverDetector:
    """Return the test of Page and Hinkley; it needs no *seed*."""
    return RiverDetector(
        lambda: PageHinkley(
            min_instances=settings.minimum_blocks, delta=settings.delta, threshold=settings.threshold, mode="both"
        )
    )
