"""`tlora recipe` and the edges of the command line, as users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlora_cli.cli import app, commands
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.recipe.reading import parse_recipe

LEAST = """\
family: sdxl
base: some/model
concept: {images: dog.jpg, class: dog}
output: {dir: runs/dog}
"""
ROOT = Path(__file__).parents[2]


def tlora(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; it never shows a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "tlora_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(LEAST)
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.yaml"
    file.write_text(LEAST + "train: {stepz: 5}\n")
    return file


def test_check_good(good: Path) -> None:
    done = tlora("recipe", "check", good)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{good}: ok\n", "")


def test_check_reports_every_file(good: Path, bad: Path) -> None:
    done = tlora("recipe", "check", bad, good, bad)
    assert done.returncode == 2
    assert done.stdout == f"{good}: ok\n"
    assert done.stderr.count(f"error: 1 mistake in {bad}\n") == 2
    assert "  line 5: train.stepz: unknown key; did you mean `train.steps`?\n" in done.stderr


def test_show_is_a_recipe(good: Path) -> None:
    done = tlora("recipe", "show", good, "--set", "train.steps=3", "--set", "base.revision=x")
    assert done.returncode == 0
    shown = parse_recipe(done.stdout)
    assert shown == parse_recipe(LEAST, overrides=["train.steps=3", "base.revision=x"])


def test_show_reports_a_wrong_override(good: Path) -> None:
    done = tlora("recipe", "show", good, "--set", "train.stepz=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: 1 mistake in {good}\n  --set train.stepz=3: train.stepz")


def test_missing_file() -> None:
    done = tlora("recipe", "show", "nowhere.yaml")
    assert done.returncode == 2
    assert done.stderr == (
        "error: there is no such recipe\n  where: nowhere.yaml\n  fix:   check the path\n"
    )


def test_schema_is_json() -> None:
    done = tlora("recipe", "schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["required"] == ["family", "base", "concept", "output"]


def test_usage_mistakes() -> None:
    for arguments in (["--nope"], ["nope"], ["recipe", "check"], ["recipe", "show", "a", "b"]):
        done = tlora(*arguments)
        assert done.returncode == 2, arguments
        assert "Usage: tlora" in done.stderr


def test_help_and_version() -> None:
    for arguments in ([], ["recipe"]):
        done = tlora(*arguments)
        assert "Usage: tlora" in done.stdout + done.stderr
    assert tlora("recipe", "show", "--help").returncode == 0
    done = tlora("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("tlora ")


def test_a_bad_recipe_is_reported_without_torch(good: Path, bad: Path) -> None:
    code = (
        "import sys\n"
        "from tlora_cli.cli.app import main\n"
        "status = main()\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate', 'numpy'} & set(sys.modules)\n"
        "print(status, sorted(heavy))\n"
    )
    for file, status in ((good, 0), (bad, 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, "recipe", "check", str(file)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == f"{status} []"


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tlora_cli", "recipe", "schema"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_warning_is_one_plain_line() -> None:
    """Without the place in the code and the line of it that Python prints."""
    code = (
        "import warnings\n"
        "from tlora_cli.cli.quiet import hush_libraries\n"
        "hush_libraries()\n"
        "warnings.warn('dog.jpg is small', stacklevel=2)\n"
    )
    for debug, wanted in (("0", "warning: dog.jpg is small\n"), ("1", "UserWarning")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TLORA_DEBUG": debug},
            check=True,
        )
        assert done.stderr == wanted if debug == "0" else wanted in done.stderr


def failing(error: BaseException) -> object:
    def run(**_: object) -> None:
        raise error

    return run


def test_user_errors_end_with_the_status_of_their_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "app", failing(UserError("no such thing", "here", "look there")))
    assert app.main() == 2
    assert capsys.readouterr().err == ("error: no such thing\n  where: here\n  fix:   look there\n")
    monkeypatch.setattr(commands, "app", failing(UserError("gone", kind=Status.MISSING)))
    assert app.main() == 3


def test_internal_errors_are_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "app", failing(ZeroDivisionError("why\nmore")))
    monkeypatch.delenv("TLORA_DEBUG", raising=False)
    assert app.main() == 1
    message = "internal error: ZeroDivisionError: why; set TLORA_DEBUG=1 for the traceback\n"
    assert capsys.readouterr().err == message
    monkeypatch.setenv("TLORA_DEBUG", "1")
    assert app.main() == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith(message)


def test_a_commands_own_status_is_kept_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "app", failing(SystemExit(130)))
    assert app.main() == 130
    assert capsys.readouterr().err == ""
