"""Drift detectors."""

from learnd.core.registry import Registration
from learnd.drift.detectors.settings import AdwinSettings, KswinSettings, PageHinkleySettings

DETECTORS = {
    "adwin": Registration(AdwinSettings, "learnd.drift.detectors.adwin:make_adwin"),
    "page_hinkley": Registration(PageHinkleySettings, "learnd.drift.detectors.page_hinkley:make_page_hinkley"),
    "kswin": Registration(KswinSettings, "learnd.drift.detectors.kswin:make_kswin"),
}
"""Detectors by the value of ``kind`` in ``drift.detectors``."""
