"""The documents say what is so: every example loads, every command parses, every link and path exists.

What needs TensorFlow or a stream is run by `tests/integration/test_document_examples.py`.
"""

import contextlib
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import learnd.core.errors
from learnd.cli.main import _parser
from learnd.config.loader import json_schema, loads
from learnd.core.errors import LearndError, UsageError
from learnd.sources.memory import ScriptedCrash
from tests.support.documents import (
    DOCUMENTS,
    PAGES,
    Block,
    anchors,
    block,
    blocks,
    commands,
    heredocs,
    links,
    read,
    spans,
)
from tests.support.helpers import ROOT

LIMITS = {"README.md": 200, "configs/README.md": 60, ".github/CONTRIBUTING.md": 200, "daemon/DESIGN.md": 900}
"""Lines; every other page has `_PAGE_LINES`."""
_PAGE_LINES = 300
_GENERATED = ("daemon/docs/configuration.md",)
BASE: dict[str, Any] = {
    "source": {"kind": "simulator"},
    "features": ["temperature", "pressure"],
    "target": "wear",
    "model": {"kind": "mlp"},
}
"""What a fragment of a configuration is added to."""
RUN_ELSEWHERE = {
    "./learnd_edge": "tests/cpp/test_cpp.py",
    "sh": "tests/cpp/test_cpp.py",
    "openssl": "tests/integration/test_document_examples.py",
    "cat": "tests/integration/test_document_examples.py",
}
"""Programs of the documents that are not ours, and the test that runs them."""
NOT_RUN = {
    "tail": "pipes lines into learnd_edge",
    "curl": "asks TensorFlow Serving or a running daemon",
    "docker": "is not installed where tests run",
    "apt-get": "changes the machine",
}
_SCHEMA = json_schema()
_SECTIONS = frozenset(_SCHEMA["properties"])
_FILE_SUFFIXES = ("py", "md", "yaml", "json", "jsonl", "keras", "tflite", "onnx", "h5", "cc", "sh", "pem", "service")


def all_blocks(language: str, documents: tuple[str, ...] = PAGES) -> Iterator[Any]:
    """Yield every block in *language* as a case of a test."""
    for document in documents:
        for found in blocks(document, language):
            yield pytest.param(found, id=str(found))


def loads_as_documented(text: str) -> None:
    """Load a configuration, or add a fragment of one to a small one and load that."""
    values = yaml.safe_load(text)
    if {"source", "features", "model"} <= values.keys():
        loads(text, environ={})
        return
    target = {} if "task" in values and values["task"].get("kind") in ("forecast", "reconstruction") else BASE
    base = {key: value for key, value in BASE.items() if key != "target" or target}
    loads(yaml.safe_dump({**base, **values}), environ={})


@pytest.mark.parametrize("example", all_blocks("yaml", DOCUMENTS))
def test_every_configuration_loads(example: Block) -> None:
    """As it stands, or as a part of a small one."""
    loads_as_documented(example.text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_short_configuration_loads(document: str) -> None:
    """Inline code such as `model: {load: model.keras}`."""
    for span in spans(document):
        key, colon, value = span.partition(": ")
        if colon and key in _SECTIONS and value.startswith("{") and "..." not in value:
            loads_as_documented(span)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_that_is_named_exists(document: str) -> None:
    """Inline code such as `learning.replay` or `source.max_batch_bytes`."""
    properties = {name: _options(value, _SCHEMA["$defs"]) for name, value in _SCHEMA["properties"].items()}
    for span in spans(document):
        section, _, rest = span.partition(".")
        if section not in _SECTIONS or not re.fullmatch(r"[a-z_0-9]+(\.[a-z_]+)?", rest):
            continue
        if rest.partition(".")[0] in _FILE_SUFFIXES:
            continue
        assert rest.partition(".")[0] in properties[section], f"{document}: `{span}`"


def _options(value: Any, definitions: Any) -> set[str]:
    """Return the keys that a section may have, of whatever kind it is."""
    found: set[str] = set()
    if isinstance(value, dict):
        if "$ref" in value:
            found |= set(definitions[value["$ref"].rpartition("/")[2]].get("properties", {}))
        for inner in value.values():
            found |= _options(inner, definitions)
    elif isinstance(value, list):
        for inner in value:
            found |= _options(inner, definitions)
    return found


def test_the_files_that_examples_write_are_configurations_that_load() -> None:
    """What the shell writes with `cat`."""
    texts = [text for document in PAGES for shell in blocks(document, "sh") for text in heredocs(shell)]
    assert len(texts) >= 1
    for text in texts:
        loads(text, environ={})


@pytest.mark.parametrize("example", all_blocks("python"))
def test_every_python_example_compiles(example: Block) -> None:
    """Syntax alone; `test_document_examples` and `test_questions` run them."""
    compile(example.text, str(example), "exec")


def test_the_scripted_stream_plays() -> None:
    """The example of `MemorySource`, and what the page says of it."""
    space: dict[str, Any] = {}
    exec(block("daemon/docs/testing.md", "python", "MemorySource").text, space)
    source = space["source"]
    source.open({})
    assert [found.values for found in source.poll(10, 0.0)] == [[b'{"a": 1.0}']]
    assert source.poll(10, 0.0) == []
    assert [found.values for found in source.poll(10, 0.0)] == [[b'{"a": 2.0}']]
    with pytest.raises(ScriptedCrash):
        source.poll(10, 0.0)


@pytest.mark.parametrize("example", all_blocks("sh", DOCUMENTS))
def test_every_command_exists_with_its_options(example: Block) -> None:
    """Ours are parsed by the real parser; others are run by the test that is named, or it is said why not."""
    for words in commands(example.text):
        _require_command(words, str(example))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_short_command_exists_with_its_options(document: str) -> None:
    """Inline code such as `learnd validate CONFIG`; a mere name such as `learnd run` must be a command."""
    for span in spans(document):
        if span.startswith(("learnd ", ".venv/bin/")) and "..." not in span:
            for words in commands(span):
                if words[0] == "learnd" and len(words) == 2:
                    _require_command([*words, "--help"], f"{document}: `{span}`")
                else:
                    _require_command(words, f"{document}: `{span}`")


def _require_command(words: list[str], place: str) -> None:
    program, *arguments = words
    if "=" in program and arguments:  # a variable of the environment
        program, *arguments = arguments
    name = program.removeprefix(".venv/bin/")
    if name == "learnd":
        try:
            with contextlib.suppress(SystemExit):  # --help
                _parser().parse_args(arguments)
        except UsageError as error:
            pytest.fail(f"{place}: {shlex.join(words)}: {error}")
    elif name in ("python", "python3"):
        _require_module(arguments, place)
    elif name == "pytest":
        paths = [word for word in arguments if word.startswith("tests/")]
        assert [path for path in paths if not (ROOT / path).exists()] == [], place
    elif name == "pip":
        extras = set(re.findall(r"\[([\w,]+)\]", " ".join(arguments)))
        assert all(f"\n{extra} = [" in read("pyproject.toml") for some in extras for extra in some.split(",")), place
    elif program == ".":  # reads an environment into the shell
        assert arguments == [".venv/bin/activate"], place
    elif name in RUN_ELSEWHERE:
        assert (ROOT / RUN_ELSEWHERE[name]).exists()
        assert name == "cat" or name.removeprefix("./") in read(RUN_ELSEWHERE[name]), place
    else:
        assert name in NOT_RUN, f"{place}: nobody runs {name}; name a test in RUN_ELSEWHERE"


def _require_module(arguments: list[str], place: str) -> None:
    """Check that the module exists, and that each option appears in its text."""
    assert arguments[0] == "-m", place
    module, options = arguments[1], [word for word in arguments[2:] if word.startswith("-")]
    spec = find_spec(module)
    assert spec is not None, f"{place}: no module {module}"
    if module.startswith(("learnd.", "tests.")):
        assert spec.origin is not None
        text = Path(spec.origin).read_text()
        assert [option for option in options if option not in text] == [], place


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    """To a file that is there, and to a heading in it."""
    for target in links(document):
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_is_named_exists(document: str) -> None:
    """Paths from the root; modules of tests; files of a package of ours, as in `sources/kafka.py`."""
    text = read(document)
    names = re.findall(r"(?<![\w/.-])(?:configs|deploy|tests|daemon)/[\w./-]*\w", text)
    names += [f"{module.replace('.', '/')}.py" for module in re.findall(r"\btests\.\w+\.\w+", text)]
    tracked = _tracked()
    ours = [span for span in spans(document) if re.fullmatch(r"[\w/]+/\w+\.py", span) and span not in names]
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert [name for name in ours if not any(path.endswith(f"/{name}") for path in tracked)] == []


def _tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() or [str(path) for path in ROOT.rglob("*.py")]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_metric_that_is_named_exists(document: str) -> None:
    """In the table of `deploy/README.md`, which `tests/unit/test_deploy.py` compares with a scrape."""
    names = set(re.findall(r"^\| `(learnd_\w+)` \|", read("deploy/README.md"), re.MULTILINE))
    assert len(names) > 30
    assert set(re.findall(r"`(learnd_[a-z_]+)[`{]", read(document))) - names == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_document_is_longer_than_one_reads(document: str) -> None:
    """The README is read in five minutes; a page has one subject."""
    if document not in _GENERATED:
        assert len(read(document).splitlines()) <= LIMITS.get(document, _PAGE_LINES)


def test_the_exit_codes_are_those_of_the_code() -> None:
    """Each class of error has a row in the README's table."""
    table = read("README.md").partition("## Exit codes")[2].partition("\n## ")[0]
    told = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in cell.split(", ")}
    classes = [value for value in vars(learnd.core.errors).values() if isinstance(value, type)]
    raised = {found.exit_code for found in classes if issubclass(found, LearndError)}
    assert raised | {0, 65, 128 + signal.SIGINT, 128 + signal.SIGTERM} == told


def test_every_page_is_in_the_table_of_contents() -> None:
    """Of the README and of the folder."""
    for page in PAGES:
        name = page.rpartition("/")[2]
        if name != "README.md":
            assert f"(daemon/docs/{name}" in read("README.md"), name
            assert f"({name})" in read("daemon/docs/README.md"), name
