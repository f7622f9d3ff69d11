"""`import tlora_cli as tlora`: what is at its top, what it costs, and the pages that show it."""

from __future__ import annotations

import json
import re
import rlcompleter
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import api_reference
import pytest
from doc_pages import blocks
from training_runs import ROOT

import tlora_cli as tlora
from tlora_cli import formats

LIBRARY = ROOT / "docs" / "library.md"
WANTED = {"train", "sample", "load_recipe", "load_adapter", "METHODS", "FAMILIES", "SCHEDULES"}
LOOKED_AT = """
import json, sys
import tlora_cli
from tlora_cli import formats
names = dir(tlora_cli) + dir(formats)
slow = {"accelerate", "diffusers", "matplotlib", "peft", "pydantic", "torch", "transformers"}
print(json.dumps([names, sorted(slow & sys.modules.keys())]))
"""


def test_all_names_show_and_nothing_slow_is_imported_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOKED_AT], capture_output=True, text=True, check=True, cwd=ROOT
    )
    names, slow = json.loads(done.stdout)
    assert set(names) >= {*tlora.__all__, *formats.__all__} >= WANTED
    assert not slow


def test_completion_shows_them() -> None:
    complete: Any = rlcompleter.Completer({"tlora": tlora})
    matches = complete.attr_matches("tlora.load_")
    assert [one.rstrip("()") for one in matches] == ["tlora.load_adapter", "tlora.load_recipe"]
    assert "tlora.METHODS" in complete.attr_matches("tlora.")
    assert not [name for name in dir(tlora) if name in ("annotations", "import_module", "Any")]


@pytest.mark.parametrize("package", [tlora, formats])
def test_every_name_is_there_and_no_other(package: Any) -> None:
    assert sorted(package.__all__) == [name for name in dir(package) if not name.startswith("__")]
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'trai"):
        package.trai  # noqa: B018


def test_a_registry_says_what_it_lists() -> None:
    assert repr(tlora.FAMILIES) == f"<tlora.families: {', '.join(tlora.FAMILIES)}>"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "f16"}, "precision 'f16' is not known.*did you mean fp16"),
        ({"quantization": "int4"}, "quantization 'int4' is not known.*did you mean int8"),
        ({"device": "gpu"}, "device 'gpu' is not known.*known: auto, cpu, cuda"),
    ],
)
def test_sample_refuses_an_unknown_name(settings: dict[str, str], said: str) -> None:
    with pytest.raises(tlora.UserError, match=f"(?s){said}"):
        tlora.sample("adapter.safetensors", "a V*", **settings)


def test_the_page_can_be_followed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_sdxl: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    whole = "\n".join(blocks(LIBRARY, "python"))
    whole = whole.replace("stabilityai/stable-diffusion-xl-base-1.0", str(tiny_sdxl))
    whole = whole.replace("train.steps=400", "train.steps=2").replace("rank=64, s", "rank=8, s")
    whole = whole.replace('"output.dir=runs/momo"', '"output.dir=runs/momo", "sampling.steps=2"')
    exec(compile(whole, "library.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "did you mean `train.steps`?" in printed
    assert re.search(
        r"^<Adapter: tlora on SDXL, rank 8 \(linear, least 4\), \d+ layers>$", printed, re.M
    )
    assert "[64, 48, 32]" in printed and "'textual_inversion'" in printed
    runs = [f"runs/{name}/adapter.safetensors" for name in ("momo", "momo-0", "momo-1", "momo-2")]
    assert all((tmp_path / file).is_file() for file in runs)
    assert len({(tmp_path / file).read_bytes() for file in runs[1:]}) == 3  # of three seeds
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2


# --- the page of names ----------------------------------------------------------------------------


def test_the_reference_is_what_the_docstrings_say() -> None:
    made = api_reference.page()
    assert api_reference.PAGE.read_text("utf-8") == made, "run `python scripts/api_reference.py`"


def test_the_reference_has_every_name_and_every_argument() -> None:
    page = api_reference.PAGE.read_text("utf-8")
    titles = re.findall(r"^## `(\w+)`$", page, re.MULTILINE)
    assert sorted(titles) == sorted(tlora.__all__)
    part = page.partition("## `sample`")[2].partition("\n## ")[0]
    told = re.findall(r"^- `(\w+)`: \S", part, re.MULTILINE)
    taken = tlora.sample.__annotations__.keys() - {"return"}
    assert taken and set(told) == taken | {"UserError"}
