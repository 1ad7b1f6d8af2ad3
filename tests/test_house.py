"""The rules of the house, as `CONTRIBUTING.md` tells them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from learnd.config.loader import json_schema
from learnd.config.reference_page import markdown

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "daemon" / "learnd"
VERBS = ROOT / "tests" / "support" / "imperative_verbs.txt"
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


def _modules(*places: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield the path and the syntax tree of each module in these folders or files of the package; of all without."""
    for place in places or ("",):
        path = PACKAGE / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            yield str(file.relative_to(PACKAGE)), ast.parse(file.read_text())


def _is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = [ast.unparse(decorator).rpartition(".")[2] for decorator in function.decorator_list]
    return "property" in names or "cached_property" in names


def test_docstrings_of_functions_start_with_an_imperative_verb() -> None:
    """PEP 257: a docstring prescribes ("Return the offsets"). A verb that is missing belongs in the list."""
    verbs = VERBS.read_text().split()
    assert verbs == sorted(set(verbs)), f"{VERBS.name} must be sorted, without repetitions"
    wrong = []
    for path, tree in _modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_property(node):
                continue
            docstring = ast.get_docstring(node)
            if docstring and docstring.split()[0].rstrip(".,:;") not in verbs:
                wrong.append(f"{path}:{node.lineno}: {node.name}: {docstring.splitlines()[0]}")
    assert not wrong, "\n".join(wrong)


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
            yield from (argument.annotation for argument in arguments if argument is not None and argument.annotation)
            if node.returns is not None:
                yield node.returns


def test_bare_any_stays_rare() -> None:
    """A bare `Any` is a missing protocol (`learnd.core.tensors` has those of TensorFlow and Keras)."""
    bare = {path: [ast.unparse(a) for a in _annotations(tree)].count("Any") for path, tree in _modules()}
    total = sum(len(list(_annotations(tree))) for _, tree in _modules())
    worst = sorted(bare.items(), key=lambda item: -item[1])[:10]
    assert sum(bare.values()) < 0.08 * total, f"{sum(bare.values())} of {total} annotations; most in {worst}"


def _asks_kind(node: ast.AST) -> bool:
    """Return whether *node* is ``isinstance(x, ...Settings)``, or compares a ``kind`` or a ``mode`` with text."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        types = {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node.args[1])}
        return any(name.endswith("Settings") for name in types)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        asked = any(isinstance(side, ast.Attribute) and side.attr in ("kind", "mode") for side in sides)
        texts = [
            n for side in sides for n in ast.walk(side) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
        return asked and bool(texts)
    return False


def test_wiring_asks_components_instead_of_their_kinds() -> None:
    """A new kind touches its own file, its settings and one registry line; these modules ask its settings."""
    wrong = [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in _modules("wiring", "runtime", "config/cross_checks.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.expr) and _asks_kind(node)
    ]
    assert not wrong, "\n".join(wrong)
