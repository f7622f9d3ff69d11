"""Exit statuses: the table in the document is the program's, and commands agree on them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from training_runs import ROOT, write_recipe

from tlora_cli.cli.app import main
from tlora_cli.foundation.errors import Status, UserError, no_room
from tlora_cli.foundation.files import locked
from tlora_cli.tools.preflight.findings import ok, problem, status_of, warning

Ended = Callable[..., tuple[int, str]]


@pytest.fixture
def ended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Ended:
    """Return a function that runs `tlora` and gives its status and all that it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        status = main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return status, out + err

    return run


def test_the_table_of_the_document_is_the_programs() -> None:
    text = (ROOT / "docs" / "service.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\w ]+) \| (.+?) \| (.*?) ?\|$", text, re.MULTILINE)
    assert [(int(number), word) for number, word, *_ in rows] == [(s, s.word) for s in Status]
    assert all(means and (do or word == "done") for _, word, means, do in rows)


def test_no_other_number_is_written_anywhere() -> None:
    """A command that ends by itself names a status."""
    found = [
        f"{file.name}: {line.strip()}"
        for file in (ROOT / "tlora_cli").rglob("*.py")
        for line in file.read_text("utf-8").splitlines()
        if re.search(r"typer\.Exit\(\d", line)
    ]
    assert not found, found


def test_a_base_that_is_nowhere_is_missing_in_every_command(
    ended: Ended, tiny_sdxl: Path, trained: Path, tmp_path: Path
) -> None:
    for base in ("nobody/no-such-model", "no/such/folder"):
        recipe = write_recipe(tiny_sdxl, tmp_path, base=base)
        for words in (
            ["train", "--config", recipe],
            ["validate", recipe],
            ["sample", "--adapter", trained, "--prompt", "V*", "--base", base],
            ["merge", trained, "--base", base, "--output", tmp_path / "merged"],
        ):
            status, said = ended(*words)
            assert status == Status.MISSING, (words, said)


def test_a_folder_in_use_is_for_later_in_every_command(
    ended: Ended, tiny_sdxl: Path, trained: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tiny_sdxl, tmp_path, output__dir=str(trained.parent))
    with locked(trained.parent):
        for words in (["train", "--config", recipe], ["publish", trained.parent, "--output", "p"]):
            status, said = ended(*words)
            assert status == Status.LATER, said
            assert "wait for it" in said and "--resume" not in said


def test_a_full_standard_output_is_no_fault() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tlora_cli", "recipe", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert done.returncode == Status.NO_ROOM
    assert done.stderr.startswith("error: the disk is full: No space left on device")
    assert "fix:   free disk space" in done.stderr


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (MemoryError(), "the machine ran out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "the machine"),
        (OSError(12, "Cannot allocate memory"), "the machine ran out of memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), "the GPU ran out"),
        (OSError(28, "No space left on device", "/x"), "the disk is full"),
    ],
)
def test_want_of_room_is_told_as_such(error: Exception, what: str) -> None:
    told = no_room(error)
    assert told is not None and told.kind is Status.NO_ROOM
    assert told.what.startswith(what) and told.do


def test_other_errors_are_not() -> None:
    for error in (RuntimeError("shapes"), OSError(2, "No such file"), UserError("x"), ValueError()):
        assert no_room(error) is None


def test_of_several_problems_the_first_to_mend_counts() -> None:
    room = problem("disk", "full", kind=Status.NO_ROOM)
    gone = problem("base", "gone", kind=Status.MISSING)
    assert status_of([ok("a", "b"), warning("a", "b")]) == 0
    assert status_of([room, ok("a", "b")]) == 5
    assert status_of([room, gone]) == 3
    assert status_of([room, gone, problem("recipe", "wrong")]) == 2
