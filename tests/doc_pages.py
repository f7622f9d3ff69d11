"""What the documents say: their blocks, the commands in them, the recipes and other named files."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training_runs import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# ([\w-]+\.(?:yaml|py))\b")
"""First line of a block that is a file."""


@dataclass(frozen=True)
class Line:
    """A command line of a page, as it is written."""

    page: Path
    text: str

    @property
    def words(self) -> list[str]:
        """The words as a shell splits them, without `NAME=value` before them; not expanded."""
        words = shlex.split(self.text, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        return words

    @property
    def tlora(self) -> list[str] | None:
        """The arguments of the `tlora` command in it, in a container or not; else None."""
        words = self.words
        if words[0] == "tlora":
            return words[1:]
        if words[:2] != ["docker", "run"] or "--entrypoint" in words:
            return None
        return words[words.index("tlora") + 1 :]  # the image

    def expanded(self, folder: Path) -> list[str]:
        """Return the words as bash hands them to the command: variables, `$(...)`, quotes."""
        text = re.sub(r"^([A-Z_]+=\S* )+", "", self.text)
        done = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {text}"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split("\0")[:-1]


def blocks(page: Path, language: str) -> list[str]:
    """Return the texts of a page's blocks in a language."""
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def lines(page: Path) -> Iterator[Line]:
    """Yield the command lines of a page; `a && b` are two."""
    for block in blocks(page, "bash"):
        for text in block.replace("\\\n", " ").splitlines():
            for part in text.split(" && "):
                if part.strip() and not part.strip().startswith("#"):
                    yield Line(page, part.strip())


def named_files(page: Path) -> dict[str, str]:
    """Return the files that a page writes out: name in the first line -> text."""
    found = {}
    for language in ("yaml", "python"):
        for text in blocks(page, language):
            if match := NAMED.match(text):
                found[match[1]] = text
    return found


ALL_LINES = [line for page in PAGES for line in lines(page)]
