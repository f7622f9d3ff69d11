"""Messages name things: none has a hole where a name is empty or None.

What may have no name (a file of another program, an error of the system, a list without entries) is
made so here, and the message must say that there is none.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from small_denoisers import make_unet, stir
from training_runs import ROOT

from tlora_cli import UserError, attach
from tlora_cli.cli.app import main
from tlora_cli.cli.choices import check_known, check_name
from tlora_cli.families.loading import Base, family_of_base
from tlora_cli.formats import AdapterInfo, read_adapter
from tlora_cli.foundation.errors import known_names, system_reason

HOLE = re.compile(
    r"(?:^|[ (])[,;:](?=\s|$)|\(\s*\)|\bNone\b|\S  (?=\S)|\b(?:not to|of|is|a|an|known:)\s*$"
)


def told(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return what a command that is refused says, after a look for holes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        assert main() == 2
    text = capfd.readouterr().err
    for line in text.splitlines():
        assert not HOLE.search(re.sub(r"^\s*(where|fix): +", "", line.strip())), line
    return text


def test_holes_are_found() -> None:
    for line in (
        "not to , toy-sdxl",
        "one built-in base, not to ",
        "--to  is not known",
        "the base odd is a None",
        "no variant 'x'; known: ",
    ):
        assert HOLE.search(line), line
    assert not HOLE.search("the base model, or none: say which (of two)")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Return adapters that say their base, that say none, and of a base that is not built in."""
    made = {}
    for name, base in (("own", "toy-sdxl"), ("flux", "toy-flux"), ("odd", "a/b"), ("none", None)):
        adapter = stir(attach(make_unet(), "lora", 2, info=AdapterInfo(base_model=base)))
        made[name] = tmp_path / f"{name}.safetensors"
        adapter.save(made[name])
        adapter.remove()
    return made


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["none"], "the adapter file does not say which base model it belongs to"),
        (["own", "none"], "the adapter file does not say which base model it belongs to"),
        (["own", "odd"], "the adapter belongs to a/b, which does not draw the built-in world"),
        (["own", "flux"], "the adapters belong to toy-flux and toy-sdxl, and are compared on one"),
    ],
)
def test_a_score_of_foreign_files(
    names: list[str],
    said: str,
    files: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given = [part for name in names for part in ("--adapter", f"{name}={files[name]}")]
    arguments = ("--concept", "momo", "--output", tmp_path / "q")
    text = told(capfd, "toyworld", "score", *given, *arguments)
    assert said in text
    if len(names) == 1 or "flux" not in names:
        assert f"where: {files[names[-1]]}" in text


def test_a_base_whose_index_names_no_pipeline(
    files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "model_index.json").write_text(json.dumps({"unet": ["a", "b"]}))
    options = ("--base", tmp_path / "odd", "--output", tmp_path / "merged")
    said = "odd has a model_index.json that names no pipeline"
    assert said in told(capfd, "merge", files["none"], *options)
    with pytest.raises(UserError, match=said):
        family_of_base(Base(str(tmp_path / "odd")))


def test_names_of_an_empty_list_or_an_empty_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert known_names("x", []) == "there are none"
    for check in (check_name, check_known):
        with pytest.raises(UserError, match=r"^--to '' is not known"):
            check("--to", "", ["kohya"])
    grid = ROOT / "configs" / "compare_toy.yaml"
    assert "no variant 'x'; there are none" in told(capfd, "compare", grid, "--set", "variant=x")
    assert "--set KEY=VALUE" in told(capfd, "compare", grid, "--only", "=3")


def test_an_error_of_the_system_without_words() -> None:
    assert system_reason(PermissionError(13, "Permission denied")) == "Permission denied"
    assert system_reason(OSError("cut off")) == "cut off"
    assert system_reason(TimeoutError()) == "TimeoutError"


def test_a_file_that_names_no_method(tmp_path: Path) -> None:
    adapter = stir(attach(make_unet(), "svdiff"))
    adapter.save(tmp_path / "a.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        header = {k: v for k, v in file.metadata().items() if k != "tlora.method"}
    save_file(load_file(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", header)
    with pytest.raises(UserError, match=r"header is damaged \(ValueError: it names no method"):
        read_adapter(tmp_path / "b.safetensors", ())


def test_no_message_takes_words_that_may_not_be_there() -> None:
    """`strerror` may be None, and so may what `get` returns."""
    found, seen = [], 0
    for file in sorted((ROOT / "tlora_cli").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FormattedValue):
                continue
            seen += 1
            value: Any = node.value
            is_get = isinstance(value, ast.Call) and getattr(value.func, "attr", "") == "get"
            if getattr(value, "attr", "") == "strerror" or (is_get and len(value.args) == 1):
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(value)}")
    assert seen > 1000
    assert not found, "\n".join(found)
