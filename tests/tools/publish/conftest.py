"""What the tests of `tlora publish` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from publishing import FLUX, PROMPTS, SECRET
from small_denoisers import make_transformer
from training_runs import run

from tlora_cli import attach
from tlora_cli.cli.app import main
from tlora_cli.formats import AdapterInfo


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `tlora publish` and gives status, output and messages."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["tlora", "publish", *map(str, arguments)])
        return main(), *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def trained(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run; read it, do not write to it."""
    folder = tmp_path_factory.mktemp("trained")
    Image.effect_noise((96, 96), 90).convert("RGB").save(folder / f"{SECRET}.png")
    concept = {"images": str(folder / f"{SECRET}.png"), "class": "dog"}
    preview = {"every": 2, "prompts": PROMPTS, "seed": 5}
    run(tiny_sdxl, folder, concept=concept, train__steps=2, train__preview=preview)
    return folder / "run"


@pytest.fixture
def flux(tmp_path: Path) -> Path:
    """Return an adapter of FLUX, as a file alone."""
    info = AdapterInfo(base_model=FLUX, placeholder="sks", class_name="dog", train_steps=3)
    adapter = attach(make_transformer(), "tlora", 4, min_rank=2, info=info)
    adapter.save(tmp_path / "flux.safetensors")
    return tmp_path / "flux.safetensors"
