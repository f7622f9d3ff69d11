"""Drawing, with the rank mask and without: the pictures that `tlora sample` draws."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from training_runs import run

from tlora_cli.foundation.pictures import picture_settings
from tlora_cli.sampling.sample import sample
from tlora_cli.studio import drawing, exports
from tlora_cli.studio.progress import drawings, progress

pytestmark = pytest.mark.slow


def test_pictures_with_and_without_the_mask_are_those_of_the_command(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    run(tiny_sdxl, tmp_path, train__optimizer={"name": "adamw", "lr": 0.05}, sampling__steps=4)
    adapter = tmp_path / "run" / "adapter.safetensors"
    wishes = {"adapter": str(adapter), "folder": "samples/dog", "prompts": ["a V* at sea"],
              "seed": 3, "count": 2, "scale": 0.7, "both": True}  # fmt: skip
    said: list[str] = []
    files = [Path(file) for file in drawing.draw_pictures(wishes, said.append)]
    assert len(files) == 4 and sum("loading" in line for line in said) == 1
    more = drawing.draw_pictures({**wishes, "seed": 9, "both": False}, said.append)
    assert len(more) == 2 and sum("loading" in line for line in said) == 1, "the session is kept"

    for masked, rank in ((True, None), (False, 4)):
        [own, _] = [file for file in files if picture_settings(file)["rank_mask"] is masked]
        [same] = sample(adapter, "a V* at sea", tmp_path / f"cli-{masked}", seed=3, scale=0.7,
                        min_rank=rank)  # fmt: skip
        assert Image.open(own).tobytes() == Image.open(same).tobytes()
        told, meant = picture_settings(own), picture_settings(same)
        for key in ("prompt", "seed", "scale", "rank", "min_rank"):
            assert told[key] == meant[key], key
    pair = [Image.open(file).tobytes() for file in files[:2]]
    assert pair[0] != pair[1], "the mask makes a difference"

    shown = drawings(Path("samples/dog"))
    assert [(one["seed"], "unmasked" in one) for one in shown] == [
        (10, False), (9, False), (4, True), (3, True),
    ]  # fmt: skip

    told_run = progress("dog", tmp_path / "run")
    assert (told_run["state"], told_run["step"], told_run["adapter"]) == (
        "finished", 6, str(adapter),
    )  # fmt: skip


def test_exports_are_those_of_the_commands(tiny_sdxl: Path, tmp_path: Path) -> None:
    run(tiny_sdxl, tmp_path, train__steps=2)
    folder = tmp_path / "run"
    for target in ("comfyui", "diffusers"):
        output = exports.output_of("dog", target)
        wishes = {"target": target, "run": str(folder), "output": str(output),
                  "adapter": str(folder / "adapter.safetensors")}  # fmt: skip
        assert exports.export(wishes, lambda line: None)["notes"]
        assert output.exists()
        with pytest.raises(Exception, match="exists already"):
            exports.export(wishes, lambda line: None)
        words = exports.command_of(target, "runs/dog", output)
        assert words[:3] == ["tlora", "convert", "runs/dog"] and words[-1] == str(output)
