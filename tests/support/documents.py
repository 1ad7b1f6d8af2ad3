"""The documents, taken apart: their code blocks, commands, links, paths and names."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.helpers import ROOT

PAGES = ("README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "daemon" / "docs").glob("*.md")))
"""What users read."""
DOCUMENTS = (*PAGES, "configs/README.md", "deploy/README.md", "daemon/DESIGN.md", ".github/CONTRIBUTING.md")
"""All of them, with what those who change learnd read."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<'(\w+)'\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_SEPARATORS = {"&&", "|", "&", ";", "||"}
_REDIRECTIONS = {"<", ">", ">>"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced code block."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def read(document: str) -> str:
    """Return the text of *document*."""
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[Block]:
    """Return the fenced code blocks of *document* in *language*, in order."""
    text = read(document)
    return [
        Block(document, text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2))
        for match in _BLOCK.finditer(text)
        if match.group(1) == language
    ]


def block(document: str, language: str, containing: str) -> Block:
    """Return the only block of *document* that contains a text."""
    (only,) = [found for found in blocks(document, language) if containing in found.text]
    return only


def heredocs(shell: Block) -> list[str]:
    """Return the texts that *shell* writes to files.

    >>> heredocs(Block("", 1, "sh", "cat > a <<'Y'\\nb: 1\\nY\\n"))
    ['b: 1\\n']
    """
    return [match.group(2) for match in _HEREDOC.finditer(shell.text)]


def commands(text: str) -> Iterator[list[str]]:
    """Yield each simple command of a shell text as words, without comments, redirections and texts for files.

    >>> list(commands("a --b 1 < in > out  # note\\nc && d | e &"))
    [['a', '--b', '1'], ['c'], ['d'], ['e']]
    """
    for line in _HEREDOC.sub("\n", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if word in _SEPARATORS:
                if words:
                    yield without_redirections(words)
                words = []
            else:
                words.append(word)
        if words:
            yield without_redirections(words)


def without_redirections(words: list[str]) -> list[str]:
    """Return *words* without redirections and the files that they name."""
    following = ["", *words]
    return [
        word for before, word in zip(following, words, strict=False) if not {before, word} & (_REDIRECTIONS | {"<<"})
    ]


def spans(document: str) -> list[str]:
    """Return the inline code of *document*, without that in code blocks."""
    return _SPAN.findall(_BLOCK.sub("", read(document)))


def links(document: str) -> list[str]:
    """Return the targets of the relative links of *document*."""
    found = _LINK.findall(_BLOCK.sub("", read(document)))
    return [target for target in found if "://" not in target]


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of the Markdown file at *path*."""
    text = _BLOCK.sub("", path.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def slug(heading: str) -> str:
    """Return the anchor of a *heading*.

    >>> slug("What may change on an existing `data_dir`")
    'what-may-change-on-an-existing-data_dir'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
