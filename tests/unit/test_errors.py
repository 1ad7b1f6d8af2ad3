"""Every error that learnd raises on purpose belongs to the tree of `learnd.core.errors`, which gives exit codes."""

import ast
import builtins
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import learnd
from learnd.core import errors
from learnd.core.errors import LearndError

PACKAGE = Path(learnd.__file__).parent
ROOT = LearndError.__name__
OUTSIDE = {
    ("*/settings.py", "ValueError"): "raised in validators; pydantic turns it into a problem of the configuration",
    ("cli/main.py", "ArgumentTypeError"): "argparse turns it into a usage message",
    ("config/yaml_document.py", "_TooLargeError"): "leaves PyYAML's recursion, and becomes a problem of the file",
    ("decoders/*.py", "ValueError"): "caught in the same module, where it becomes a BadRecord",
    ("decoders/*.py", "BadRecord"): "the verdict on one record, which becomes a dead letter",
    ("core/delimited.py", "ValueError"): "a line that is no row; it becomes a BadRecord, or a ConfigError for a header",
    ("core/numbers.py", "ValueError"): "a text that is no number; it becomes a BadRecord",
    ("core/times.py", "ValueError"): "a value that is no time; it becomes a BadRecord",
    ("core/times.py", "_ClockError"): "the same, for a time that the clocks skip or repeat",
    ("core/paths.py", "ValueError"): "a text that is no path: a problem of the configuration; or a BadRecord",
    ("core/paths.py", "TypeError"): "caught in the same module, where it becomes a NoValueError",
    ("core/paths.py", "NoValueError"): "a record without a value at a path; it becomes a BadRecord",
    (
        "core/settings_base.py",
        "ValueError",
    ): "raised in validators; pydantic turns it into a problem of the configuration",
    ("sources/memory.py", "ScriptedCrash"): "the crash that a test has scripted",
    ("sources/kafka_patches.py", "UnreadableBatchError"): "crosses kafka-python, and becomes an UnreadableError",
    ("sources/kafka_patches.py", "BatchTooLargeError"): "crosses kafka-python, and becomes an UnreadableError",
    ("sources/kafka_patches.py", "NotImplementedError"): "kafka-python's answer to a codec that is not installed",
    ("sources/kafka_patches.py", "EOFError"): "a damaged stream, as Python's codecs report it to kafka-python",
    ("observability/logs.py", "DropEvent"): "structlog's way to drop an event",
    ("__init__.py", "AttributeError"): "how a module says that it has no such name (PEP 562)",
    ("api/records.py", "TypeError"): "the msgspec hook's way to refuse a value; it becomes a UsageError",
    ("learners/actions.py", "KeyError"): "a mistake in the calling code, which no operator can make",
    ("learners/chunk.py", "ValueError"): "a mistake in the calling code, which no operator can make",
    ("checkpoint/state_codec.py", "TypeError"): "msgspec's way to refuse a value",
    ("testing/*.py", "RuntimeError"): "a broker for tests, which no daemon starts",
}
"""Exceptions outside the tree by file and class, each with the reason."""


def _name(node: ast.expr | None) -> str:
    """The last part of a name such as ``errors.ExportError``; empty for any other expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # an annotation in quotes
        return node.value.rpartition(".")[2]
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _classes(modules: dict[str, ast.Module]) -> dict[str, tuple[str, list[str]]]:
    """Every class of the package, with its file and its bases."""
    return {
        node.name: (path, [_name(base) for base in node.bases])
        for path, module in modules.items()
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
    }


def _is_exception(name: str, classes: dict[str, tuple[str, list[str]]]) -> bool:
    known = getattr(builtins, name, None)
    if isinstance(known, type):
        return issubclass(known, BaseException)
    return any(_is_exception(base, classes) for base in classes.get(name, ("", []))[1])


def _is_in_tree(name: str, classes: dict[str, tuple[str, list[str]]]) -> bool:
    return name == ROOT or any(_is_in_tree(base, classes) for base in classes.get(name, ("", []))[1])


def _factory_results(path: str, name: str, modules: dict[str, ast.Module]) -> set[str]:
    """The return type of the function *name* in the module *path*, which may import it: ``raise _unusable(...)``."""
    nodes = list(ast.walk(modules[path])) if path in modules else []
    results = {_name(node.returns) for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name}
    sources = [
        f"{(node.module or '').removeprefix('learnd.').replace('.', '/')}.py"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]
    ]
    return results or {result for source in sources for result in _factory_results(source, name, modules)}


def _raised(path: str, modules: dict[str, ast.Module]) -> Iterator[tuple[str, int, str]]:
    """File, line and class of every ``raise``. Raising a variable again is not counted: it was raised before."""
    for node in ast.walk(modules[path]):
        if not isinstance(node, ast.Raise) or node.exc is None:
            continue
        name = _name(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        if name.lstrip("_")[:1].isupper():
            yield path, node.lineno, name
        elif isinstance(node.exc, ast.Call):
            results = _factory_results(path, name, modules) or {f"{name}()"}
            yield from ((path, node.lineno, result) for result in results)


@cache
def _exceptions() -> list[tuple[str, int, str]]:
    """File, line and class of every exception that the package raises or defines, outside the tree."""
    modules = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    classes = _classes(modules)
    places = [place for path in modules for place in _raised(path, modules)]
    places += [(path, 0, name) for name, (path, _) in classes.items() if _is_exception(name, classes)]
    return [place for place in places if not _is_in_tree(place[2], classes)]


def test_every_exception_belongs_to_the_tree_or_has_a_reason_not_to() -> None:
    """The operator's exit codes come from the tree; an exception outside it must be caught by somebody else's code."""
    strangers = [
        f"{path}:{line}: {name}"
        for path, line, name in _exceptions()
        if not any(fnmatch(path, pattern) and name == known for pattern, known in OUTSIDE)
    ]
    assert strangers == []


@pytest.mark.parametrize(("pattern", "name"), OUTSIDE)
def test_every_exemption_is_still_needed(pattern: str, name: str) -> None:
    """An entry whose exception is gone would hide the next one."""
    assert any(fnmatch(path, pattern) and known == name for path, _, known in _exceptions())


def test_the_search_finds_exceptions_however_they_are_raised() -> None:
    """By class, by instance, by attribute and by a function that makes one; not a variable that is raised again."""
    source = """
def make() -> KeyError: ...
def f(error):
    raise RuntimeError("text") from error
    raise errors.OtherError
    raise make()
    raise error
    raise
"""
    names = [name for _, _, name in _raised("a.py", {"a.py": ast.parse(source)})]
    assert names == ["RuntimeError", "OtherError", "KeyError"]


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
def test_every_error_says_what_it_means_and_has_an_exit_code(name: str) -> None:
    """Codes between 64 and 78, as sysexits.h has them."""
    error = getattr(errors, name)
    assert issubclass(error, LearndError)
    assert error.__doc__
    assert 64 <= error.exit_code <= 78
