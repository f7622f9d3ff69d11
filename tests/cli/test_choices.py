"""Options whose values are names complete in the shell, plug-ins among them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tlora_cli.cli.choices import check_known, check_name, completing, either
from tlora_cli.families import FAMILIES
from tlora_cli.formats import FORMATS
from tlora_cli.foundation.errors import UserError


def test_completion() -> None:
    assert completing(FORMATS)("") == list(FORMATS)
    assert completing(FORMATS)("ko") == ["kohya"]
    assert completing(FAMILIES)("x") == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("convert --to ly", ["lycoris"]),
        (
            "init --family ",
            ["sdxl", "flux", "flux2", "z_image", "qwen_image", "sd3", "krea2", "qwen_image_21"],
        ),
    ],
)
def test_the_shell_is_told(words: str, expected: list[str]) -> None:
    asked = {"COMP_WORDS": f"tlora {words}", "COMP_CWORD": str(len(words.split(" ")))}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from tlora_cli.cli.app import main; sys.exit(main())"],
        env={**os.environ, "_TLORA_COMPLETE": "complete_bash", **asked},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == expected, done.stderr


def test_names_in_a_row() -> None:
    assert [either("abc"), either("ab"), either("a")] == ["a, b or c", "a or b", "a"]


def test_a_wrong_name() -> None:
    check_name("--device", None, ("cpu",))
    check_known("--to", "kohya", FORMATS)
    with pytest.raises(UserError, match="use one of cpu, cuda"):
        check_name("--device", "gpu", ("cpu", "cuda"))
    with pytest.raises(UserError, match="did you mean kohya"):
        check_known("--to", "kohia", FORMATS)
