"""Every registry entry is complete; a component that is registered is tested."""

from typing import get_args

import pytest

from learnd.averaging import AVERAGERS
from learnd.core.registry import Registration
from learnd.decoders import DECODERS
from learnd.drift.detectors import DETECTORS
from learnd.drift.reactions import REACTIONS
from learnd.export.formats import EXPORTERS
from learnd.learners import LEARNERS
from learnd.models import MODELS
from learnd.sources import SOURCES
from learnd.tasks import TASKS
from tests.contracts import (
    test_averagers,
    test_decoders,
    test_detectors,
    test_exporters,
    test_learners,
    test_models,
    test_reactions,
    test_sources,
)

REGISTRIES = {
    "sources": SOURCES,
    "decoders": DECODERS,
    "tasks": TASKS,
    "models": MODELS,
    "learners": LEARNERS,
    "averaging": AVERAGERS,
    "drift.detectors": DETECTORS,
    "drift.reactions": REACTIONS,
    "export.formats": EXPORTERS,
}
CASES = {
    "sources": set(test_sources.CASES) - {"memory"},
    "decoders": set(test_decoders.CASES),
    "tasks": {case[1] for case in test_models.CASES},
    "models": {case[0] for case in test_models.CASES},
    "learners": set(test_learners.CASES),
    "averaging": set(test_averagers.CASES),
    "drift.detectors": set(test_detectors.CASES),
    "drift.reactions": set(test_reactions.CASES),
    "export.formats": set(test_exporters.CASES),
}
ENTRIES = [
    pytest.param(package, kind, component, id=f"{package}-{kind}")
    for package, registry in REGISTRIES.items()
    for kind, component in registry.items()
]


@pytest.mark.parametrize(("package", "kind", "component"), ENTRIES)
def test_entry_is_complete(package: str, kind: str, component: Registration) -> None:
    """It loads, it is documented, and its settings go by the registry's name."""
    implementation = component.load()
    assert implementation.__doc__, f"{component.implementation} has no docstring"
    assert component.settings.__doc__
    assert implementation.__module__.startswith(f"learnd.{package}.")
    if package == "export.formats":
        return
    tag = "mode" if package == "learners" else "kind"
    assert get_args(component.settings.model_fields[tag].annotation) == (kind,)


@pytest.mark.parametrize("package", REGISTRIES)
def test_every_entry_has_a_contract_case(package: str) -> None:
    """No component is exempt."""
    assert CASES[package] == set(REGISTRIES[package])
