"""ADWIN of the library river."""

from river.drift import ADWIN

from learnd.drift.detectors.river_detector import RiverDetector
from learnd.drift.detectors.settings import AdwinSettings


def make_adwin(settings: AdwinSettings, *, seed: int) -> RiverDetector:
    """Return ADWIN; it needs no *seed*."""
    return RiverDetector(lambda: ADWIN(delta=settings.delta, clock=settings.clock))
