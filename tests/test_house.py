"""The rules of the house, as `CONTRIBUTING.md` tells them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from learnd.config.loader import json_schema
from learnd.config.reference_page import markdown

ROOT = Path(__file__).resolve().parent.parent
TOOLS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "imports": ["lint-imports"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_finds_nothing(tool: str) -> None:
    """ruff, mypy --strict and import-linter, configured in pyproject.toml."""
    program, *arguments = TOOLS[tool]
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_says_what_it_is() -> None:
    """A docstring at the top of every module."""
    for path in (ROOT / "daemon").rglob("*.py"):
        assert path.read_text().startswith('"""'), path


def test_the_reference_of_the_configuration_is_that_of_the_code() -> None:
    """What a user can write, a user can read about: every option, with what it does."""
    schema = json_schema()
    written = (ROOT / "daemon" / "docs" / "configuration.md").read_text()
    assert written == markdown(schema), "learnd schema --markdown > daemon/docs/configuration.md"
    for section, definition in {"": schema, **schema["$defs"]}.items():
        for option, value in definition.get("properties", {}).items():
            assert value.get("description") or "const" in value, f"{section}.{option} has no docstring"
            assert re.search(rf"\b{option}\b", written), f"{section}.{option}"


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    """One command, told in three places."""
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command.endswith(".venv/bin/pytest")
    for document in ("README.md", ".github/CONTRIBUTING.md"):
        assert f"```sh\n{command}\n```" in (ROOT / document).read_text(), document
