"""A base that is not here: what will come, and what `validate` can still say of memory and time."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import write_recipe
from validations import validate

from tlora_cli.families import FAMILIES
from tlora_cli.tools.preflight import downloads
from tlora_cli.tools.preflight.downloads import (
    fetching_time,
    is_here,
    known_size,
    look_at_download,
)

SDXL = FAMILIES["sdxl"].standard_base


def test_sizes_of_known_bases() -> None:
    """Standard bases by their facts; others of a family in proportion to their parameters."""
    for name, family in FAMILIES.items():
        assert known_size(name, family.standard_base) == family.standard_gigabytes * 1e9
        assert known_size(name, "nobody/no-such-model") is None
        for base in family.other_bases:
            size = known_size(name, base)
            assert size is not None and 0.3 < size / (family.standard_gigabytes * 1e9) < 10
    assert fetching_time(14e9) == "19 min at 100 Mbit/s"


def test_what_is_here_is_not_told(tiny_sdxl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_here("sdxl", str(tiny_sdxl)) and is_here("sdxl", "toy-sdxl")
    assert not is_here("sdxl", SDXL)
    [found] = look_at_download("sdxl", SDXL)
    assert found.text == (
        f"{SDXL} is not on this machine: about 14.0 GB come from the Hub, 19 min at 100 Mbit/s"
    )
    for base in (str(tiny_sdxl), "toy-sdxl", "nobody/no-such-model"):
        assert list(look_at_download("sdxl", base)) == []
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda *_: "a file")
    assert list(look_at_download("sdxl", SDXL)) == []


@pytest.fixture
def standard_is_tiny(tiny_sdxl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the tiny base's shapes stand for those of SDXL: counting on the true ones takes long."""
    import json

    family = type(FAMILIES["sdxl"])
    for attribute, part in (("standard_denoiser", "unet"), ("standard_vae", "vae")):
        config = json.loads((tiny_sdxl / part / "config.json").read_text())
        config = {key: value for key, value in config.items() if not key.startswith("_")}
        monkeypatch.setattr(family, attribute, config)
    monkeypatch.setattr(family, "standard_text_parameters", 100_000)


@pytest.mark.usefixtures("standard_is_tiny")
@pytest.mark.parametrize(
    ("base", "doubted"), [(SDXL, False), ("nobody/my-own-finetune", True), ("./no/such", None)]
)
def test_memory_and_time_of_a_base_that_is_not_here(
    base: str,
    doubted: bool | None,
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_recipe(tiny_sdxl, tmp_path, base=base)
    assert validate(monkeypatch, file) == 3
    printed = capsys.readouterr().out
    if doubted is None:  # a folder that was misspelled: there is no plan for what isn't named
        assert "memory           not looked at" in printed and "training: " not in printed
        return
    assert "\nok       memory           training: " in printed
    assert "\nok       time             6 training steps, 0 pictures, " in printed
    assert (f"{base} is not here: what follows is of {SDXL}" in printed) == doubted
    assert ("about 14.0 GB come from the Hub" in printed) == (not doubted)
    assert "words            not looked at" in printed
