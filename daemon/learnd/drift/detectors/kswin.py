"""KSWIN of the library river."""

from river.drift import KSWIN

from learnd.drift.detectors.river_detector import RiverDetector
from learnd.drift.detectors.settings import KswinSettings


def make_kswin(settings: KswinSettings, *, seed: int) -> RiverDetector:
    """Return KSWIN, which draws the older numbers by *seed*."""
    return RiverDetector(
        lambda: KSWIN(alpha=settings.alpha, window_size=settings.window, stat_size=settings.newest, seed=seed)
    )
