"""`tlora validate`: what would go wrong is told before, all at once, and what is right passes."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_hub import fake_hub, reach
from huggingface_hub import constants, hf_hub_download
from PIL import Image
from safetensors.torch import load_file, save_file
from single_file import write_flux, write_sdxl
from training_runs import draw_picture, recipe_values, run, write_recipe

from tlora_cli.cli.app import main
from tlora_cli.families import FAMILIES
from tlora_cli.foundation.devices import peak_memory
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import locked
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight import fitting, machine_checks, trial_run
from tlora_cli.tools.preflight.base_files import look_at_base, needed_parts
from tlora_cli.tools.preflight.findings import Finding, gigabytes
from tlora_cli.tools.preflight.fitting import Room, look_at_memory, plan_for, thriftier
from tlora_cli.tools.preflight.image_checks import look_at_pictures
from tlora_cli.tools.preflight.memory import MemoryPlan
from tlora_cli.training.run_folder import differences


def validate(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tlora", "validate", *map(str, words)])
    return main()


def recipe(tiny: Path, folder: Path, **changes: Any) -> Recipe:
    return Recipe.model_validate(recipe_values(tiny, folder, **changes))


def told(findings: Any, level: str) -> str:
    """Return the texts of a level, a line each."""
    return "\n".join(one.text for one in findings if one.level == level)


def contents(folder: Path) -> list[str]:
    return sorted(path.as_posix() for path in folder.rglob("*"))


# --- the command ------------------------------------------------------------------------------


def test_a_recipe_that_is_right(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_recipe(tiny_sdxl, tmp_path)
    before = contents(tmp_path)
    assert validate(monkeypatch, file) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"next: tlora train --config {file}"
    assert "problem" not in printed.replace("no problems", "")
    for about in ("recipe", "pictures", "base", "libraries", "device", "output", "disk", "memory"):
        assert f"\nok       {about} " in f"\n{printed}"
    assert "training: " in printed and "activations and gradients" in printed
    assert contents(tmp_path) == before


def test_all_that_is_wrong_is_told_at_once(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").write_text("a file where the run should go")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    images = [str(tmp_path / "photo.png"), str(tmp_path / "none.png"), str(tmp_path / "broken.png")]
    file = write_recipe(
        tiny_sdxl, tmp_path, concept__images=images, train__optimizer__name="adamw8bit",
        train__device="auto", train__execution="cuda_graph", adapter__rnk=4, base="no/model/here",
    )  # fmt: skip
    assert validate(monkeypatch, file) == 2
    printed = capsys.readouterr().out
    for text in (
        "unknown key; did you mean `adapter.rank`?",
        "there is no file '" + images[1],
        f"{images[2]} can't be read: it is damaged",
        "base not found: no/model/here",
        "adamw8bit needs a CUDA GPU",
        "a CUDA graph needs a CUDA GPU",
        f"{tmp_path / 'run'} is a file",
    ):
        assert text in printed, text
    assert "7 problems" in printed.splitlines()[-1]
    assert "next:" not in printed


def test_what_hangs_on_a_wrong_value_is_not_judged(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The default that stands in for a wrong value is nobody's wish."""
    file = write_recipe(tiny_sdxl, tmp_path, concept__images=7, train__steps="many")
    assert validate(monkeypatch, file) == 2
    printed = capsys.readouterr().out
    assert "concept.images: must be a path" in printed and "train.steps: must be" in printed
    assert "2 problems" in printed.splitlines()[-1]
    assert "pictures         not looked at" in printed and "memory           not looked" in printed
    assert "ok       base" in printed


def test_a_recipe_for_another_machine(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = write_recipe(tiny_sdxl, tmp_path, train__quantization="nf4", train__device="auto")
    assert validate(monkeypatch, file) == 2
    assert "problem  device           quantization nf4 needs a CUDA GPU" in capsys.readouterr().out
    assert validate(monkeypatch, file, "--card", "12gb") == 0
    printed = capsys.readouterr().out
    assert "warning  device           on this machine: quantization nf4 needs" in printed
    assert "of 12.9 GB (the card of --card)" in printed
    assert validate(monkeypatch, file, "--card", "12gb", "--deep") == 2


# --- pictures ---------------------------------------------------------------------------------


def picture(folder: Path, name: str, values: Any) -> str:
    Image.fromarray(np.asarray(values, np.uint8)).save(folder / name)
    return str(folder / name)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda base: base, ""),
        (lambda base: base[:40, :40], "is 40 x 40 and is enlarged to 64 x 64"),
        (lambda base: np.tile(base, (1, 3, 1)), "only its center square is used, and 67% is cut"),
        (lambda base: base // 12, "is very dark"),
        (lambda base: 239 + base // 16, "is very bright"),
        (lambda base: np.full_like(base, 90), "is nearly of one color"),
        (lambda base: base[..., :1].repeat(3, 2), "has no colors, so gray is learned"),
        (lambda base: np.dstack([base, base[..., 0]]), "is transparent in parts"),
    ],
)
def test_pictures_that_may_not_be_meant(
    make: Callable[[Any], Any], text: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    base = np.random.default_rng(0).integers(0, 255, (96, 96, 3))
    file = picture(tmp_path, "a.png", make(base))
    found = list(look_at_pictures(recipe(tiny_sdxl, tmp_path, concept__images=file)))
    assert text in told(found, "warning") if text else not told(found, "warning")
    assert not told(found, "problem") and len(found) == (2 if text else 1)


@pytest.mark.parametrize(
    ("mask", "level", "text"),
    [
        (lambda: np.pad(np.full((48, 48), 255), 24), "ok", "the subject is 25% of the picture"),
        (lambda: np.zeros((96, 96)), "problem", "is black"),
        (lambda: np.full((96, 96), 255), "warning", "is white everywhere and masks nothing"),
        (lambda: np.pad(np.full((6, 6), 255), 45), "warning", "leaves 0.39% of the picture"),
        (lambda: np.full((95, 96), 255), "problem", "is 96 x 95 pixels, but "),
    ],
)
def test_masks(
    mask: Callable[[], Any], level: str, text: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    file = picture(tmp_path, "mask.png", mask())
    found = list(look_at_pictures(recipe(tiny_sdxl, tmp_path, concept__masks=file)))
    assert [one.level for one in found] == ["ok", level]
    assert text in found[1].text


def test_the_same_picture_twice_and_a_turned_one(tiny_sdxl: Path, tmp_path: Path) -> None:
    one, other = draw_picture(tmp_path / "a.png"), tmp_path / "b.png"
    shutil.copy(one, other)
    turned = Image.open(draw_picture(tmp_path / "c.png", seed=1)).crop((0, 0, 96, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "c.jpg", exif=exif)
    images = [str(one), str(other), str(tmp_path / "c.jpg")]
    found = list(look_at_pictures(recipe(tiny_sdxl, tmp_path, concept__images=images)))
    assert told(found, "warning") == f"{other} is the same picture as {one}"
    assert found[-1].text == f"{images[2]}: 80 x 96, trained at 64 x 64"


# --- the base ---------------------------------------------------------------------------------


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def without(tensor: str, file: Path) -> None:
    tensors = load_file(file)
    del tensors[tensor]
    save_file(tensors, file)


def wider(tensor: str, file: Path) -> None:
    tensors = load_file(file)
    tensors[tensor] = torch.cat([tensors[tensor]] * 2)
    save_file(tensors, file)


def rewritten(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


UNET = "unet/diffusion_pytorch_model.safetensors"
DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("model_index.json is missing", lambda f: (f / "model_index.json").unlink()),
    ("model_index.json of the base can't be read", lambda f: cut_off(f / "model_index.json")),
    ("is a FluxPipeline, not a sdxl", lambda f: rewritten(f / "model_index.json",
                                                          _class_name="FluxPipeline")),
    (f"{UNET} is damaged", lambda f: cut_off(f / UNET)),
    ("unet has no weights", lambda f: (f / UNET).unlink()),
    ("unet lacks 1 of", lambda f: without("conv_in.weight", f / UNET)),
    ("conv_in.bias is [", lambda f: wider("conv_in.bias", f / UNET)),
    ("unet/config.json is missing", lambda f: (f / "unet/config.json").unlink()),
    ("unet/config.json is damaged", lambda f: cut_off(f / "unet/config.json")),
    ("unet/config.json makes no model", lambda f: rewritten(f / "unet/config.json",
                                                            block_out_channels="wide")),
    ("vae/config.json makes no model", lambda f: rewritten(f / "vae/config.json",
                                                           latent_channels=-1)),
    ("scheduler_config.json can't be used", lambda f: rewritten(
        f / "scheduler/scheduler_config.json", num_train_timesteps="many")),
    ("tokenizer_config.json is damaged: it holds no settings",
     lambda f: (f / "tokenizer/tokenizer_config.json").write_text("[]")),
    ("the folder vae is missing", lambda f: shutil.rmtree(f / "vae")),
    ("text_encoder_2 has no weights",
     lambda f: (f / "text_encoder_2/model.safetensors").unlink()),
    ("tokenizer holds no vocabulary",
     lambda f: [file.unlink() for file in (f / "tokenizer").glob("*[!g].json")]),
    ("predicts 'sample'", lambda f: rewritten(f / "scheduler/scheduler_config.json",
                                              prediction_type="sample")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "damage"), DAMAGE, ids=[text for text, _ in DAMAGE])
def test_a_folder_that_is_not_whole(
    text: str, damage: Callable[[Path], object], tiny_sdxl: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny-sdxl"
    shutil.copytree(tiny_sdxl, folder)
    [fine] = look_at_base(recipe(folder, tmp_path))
    size = sum(file.stat().st_size for file in folder.rglob("*/*") if file.is_file())
    assert fine.level == "ok" and fine.text.endswith("all whole")
    assert f"{size / 1e6:.0f} MB" in fine.text
    damage(folder)
    found = list(look_at_base(recipe(folder, tmp_path)))
    assert found and all(one.level == "problem" and one.do for one in found)
    assert text in told(found, "problem")


def test_a_flux_folder(tiny_flux: Path, tmp_path: Path) -> None:
    [fine] = look_at_base(recipe(tiny_flux, tmp_path))
    assert fine.level == "ok"


def test_a_single_file(tiny_sdxl: Path, tiny_flux: Path, tmp_path: Path) -> None:
    def look(tiny: Path, file: Path) -> list[Finding]:
        base = {"model": str(file), "config": str(folder)}
        return list(look_at_base(recipe(tiny, tmp_path, base=base)))

    folder = tmp_path / "config"
    shutil.copytree(tiny_sdxl, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    whole, part, flux = (tmp_path / f"{name}.safetensors" for name in ("whole", "unet", "flux"))
    write_sdxl(tiny_sdxl, whole)
    write_sdxl(tiny_sdxl, part, ("unet",))
    write_flux(tiny_flux, flux)
    assert [one.level for one in look(tiny_sdxl, whole)] == ["ok"]
    assert "no tensor is called first_stage_model" in told(look(tiny_sdxl, part), "problem")
    assert "no whole sdxl file" in told(look(tiny_sdxl, flux), "problem")
    cut_off(whole)
    assert "is damaged" in told(look(tiny_sdxl, whole), "problem")
    shutil.rmtree(folder / "tokenizer_2")
    assert "the folder tokenizer_2 is missing" in told(look(tiny_sdxl, whole), "problem")
    assert "there is no file" in told(look(tiny_sdxl, tmp_path / "n.safetensors"), "problem")
    # A FLUX file is the transformer alone; the rest comes from the folder, with its weights.
    shutil.rmtree(folder)
    shutil.copytree(tiny_flux, folder)
    shutil.rmtree(folder / "transformer")
    assert [one.level for one in look(tiny_flux, flux)] == ["ok"]
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    assert "text_encoder_2 has no weights" in told(look(tiny_flux, flux), "problem")


SHARDS = [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"


@pytest.mark.parametrize(
    ("variant", "unet", "encoder"),
    [
        (None, SHARDS, "text_encoder/model.safetensors"),
        ("fp16", [HALF], "text_encoder/model.fp16.safetensors"),
        ("bf16", SHARDS, "text_encoder/model.safetensors"),
    ],
)
def test_of_a_repository_only_what_is_read_counts(
    variant: str | None, unet: list[str], encoder: str
) -> None:
    names = [
        "README.md",
        *("sd_xl_base_1.0.safetensors", "unet/config.json", "unet/openvino_model.bin"),
        *("unet/model.onnx", HALF, *SHARDS),
        "unet/diffusion_pytorch_model.safetensors.index.json",
        *("text_encoder/config.json", "text_encoder/model.safetensors"),
        *("text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin"),
        *("text_encoder/flax_model.msgpack", "text_encoder_2/config.json"),
        *("tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer_2/tokenizer.json"),
        *("vae/config.json", "vae/diffusion_pytorch_model.bin"),
        "scheduler/scheduler_config.json",
    ]
    parts = {part.name: part for part in needed_parts(FAMILIES["sdxl"], names, variant)}
    weights = {
        name: [file for file in part.files if file.endswith((".safetensors", ".bin"))]
        for name, part in parts.items()
    }
    assert weights["unet"] == unet
    assert weights["text_encoder"] == [encoder]
    assert weights["vae"] == ["vae/diffusion_pytorch_model.bin"]
    assert {name: part.lacking for name, part in parts.items() if part.lacking} == {
        "text_encoder_2": "text_encoder_2 has no weights"
    }
    short = [name for name in names if "00002-of" not in name and "fp16" not in name]
    [lacking] = [p.lacking for p in needed_parts(FAMILIES["sdxl"], short, None) if p.name == "unet"]
    assert lacking == "unet has only 1 of 2 files of weights"


def test_repositories(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(model: str, **base: Any) -> list[Finding]:
        given = recipe(tiny_sdxl, tmp_path, base={"model": model, **base})
        return list(look_at_base(given))

    cache = tmp_path / "cache"
    repositories = {"me/whole": tiny_sdxl, "me/gated": tiny_sdxl}
    with fake_hub(repositories, gated={"me/gated"}) as (address, asked):
        reach(monkeypatch, address, cache)
        [found] = look("me/whole")
        assert found.level == "ok" and "without a token; 4 MB will be downloaded" in found.text
        assert not [path for path in asked if "safetensors" in path]
        assert "is gated" in told(look("me/gated"), "problem")
        assert "hf auth login" in look("me/gated")[0].do
        assert "base not found" in told(look("me/none"), "problem")
        assert "has no revision v2" in told(look("me/whole", revision="v2"), "problem")
        monkeypatch.setattr("tlora_cli.tools.preflight.base_files.free_space", lambda folder: 10**6)
        assert "4 MB are to be downloaded" in told(look("me/whole"), "problem")
        # The index is in the cache by now, the rest is not.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        [found] = look("me/whole")
        assert "not all on this machine, and HF_HUB_OFFLINE is set" in found.text
        assert found.do.endswith("hf download me/whole")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for file in tiny_sdxl.rglob("*.*"):
            hf_hub_download("me/whole", file.relative_to(tiny_sdxl).as_posix(), cache_dir=cache)
        [found] = look("me/whole")
        assert found.level == "ok" and found.text.endswith("all whole")
    [found] = look("me/whole")  # the Hub is gone, the cache is not
    assert found.level == "ok" and found.text.endswith("all whole")


# --- memory, disk, output, device -------------------------------------------------------------


def test_memory_that_does_not_suffice_says_what_to_change(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = functools.cache(lambda text, room: plan_for(Recipe.model_validate_json(text), room))
    once = functools.partial(_plan_once, plan)
    monkeypatch.setattr(fitting, "plan_for", once)
    given = recipe(tiny_sdxl, tmp_path, train__batch_size=4, train__device="auto")
    rungs = list(thriftier(given))
    assert [settings for settings, _ in rungs] == [
        {"batch_size": 1},
        {"batch_size": 1, "gradient_checkpointing": True},
        {"batch_size": 1, "gradient_checkpointing": True, "quantization": "int8"},
        {"batch_size": 1, "gradient_checkpointing": True, "quantization": "nf4"},
    ]
    large = Room(40 * 2**30, "large")
    sizes = [once(given, large).card, *(once(tried, large).card for _, tried in rungs)]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] > sizes[4]
    *phases, fine = look_at_memory(given, large)
    assert fine.level == "ok" and gigabytes(sizes[0]) in fine.text
    assert [one.text.partition(":")[0] for one in phases] == ["text", "encoding", "training"]
    # A card on which just the first two changes make it fit.
    [*_, found] = look_at_memory(given, Room(int(sizes[2] / 0.95) + 1, "small"))
    assert found.level == "problem"
    assert found.do == (
        "set train.batch_size: 1, train.gradient_checkpointing: true; it then takes "
        + gigabytes(sizes[2])
    )
    [*_, busy] = look_at_memory(given, Room(large.size, "large", used=large.size - 10**6))
    assert busy.level == "problem" and busy.do.startswith("close other programs")
    [*_, never] = look_at_memory(given, Room(2**20, "none"))
    assert never.do.startswith("train on a larger card")


def _plan_once(plan: Callable[[str, Room], MemoryPlan], given: Recipe, room: Room) -> MemoryPlan:
    return plan(given.model_dump_json(by_alias=True), Room(0, "any", is_card=room.is_card))


def test_a_full_disk(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlora_cli.tools.preflight.memory import attach_planned, planned_denoiser

    given = recipe(tiny_sdxl, tmp_path)
    adapter = attach_planned(given, planned_denoiser(given))
    fine = machine_checks.look_at_disk(given, adapter)
    assert fine.level == "ok"
    monkeypatch.setattr(machine_checks, "free_space", lambda folder: 10_000)
    full = machine_checks.look_at_disk(given, adapter)
    assert full.level == "problem" and "but 0 MB are free" in full.text


def test_what_only_the_whole_run_needs(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Encoders that score checkpoints, offline as all tests are; and a tracker's package."""
    given = recipe(tiny_sdxl, tmp_path, train__select="auto", output__trackers=["wandb"])
    assert "openai/clip-vit-base-patch32 and facebook/dino-vits16, which score" in told(
        machine_checks.look_at_encoders(given), "problem"
    )
    assert not list(machine_checks.look_at_encoders(recipe(tiny_sdxl, tmp_path)))
    if importlib.util.find_spec("wandb") is None:
        assert "wandb is not installed" in told(machine_checks.look_at_device(given), "problem")


def test_a_folder_that_is_taken(tiny_sdxl: Path, tmp_path: Path) -> None:
    given = recipe(tiny_sdxl, tmp_path)
    assert told(machine_checks.look_at_output(given), "ok") == f"{tmp_path / 'run'} can be written"
    with locked(tmp_path / "run"):
        assert "another tlora run" in told(machine_checks.look_at_output(given), "problem")
    run(tiny_sdxl, tmp_path, train__steps=1)
    assert "already holds a run" in told(machine_checks.look_at_output(given), "problem")
    nowhere = recipe(tiny_sdxl, tmp_path, output__dir="/proc/none/run")
    assert "/proc can't be written" in told(machine_checks.look_at_output(nowhere), "problem")


# --- the trial --------------------------------------------------------------------------------


def test_a_trial_is_the_same_run_cut_short(tiny_sdxl: Path, tmp_path: Path) -> None:
    given = recipe(
        tiny_sdxl, tmp_path, train__steps=2000, train__accumulation=2,
        concept__prior={"count": 50},
        train__preview={"every": 100, "prompts": ["V*", "x"], "count": 3},
    )  # fmt: skip
    short = trial_run.trial_recipe(given, tmp_path / "trial")
    changes = differences(given.model_dump(by_alias=True), short.model_dump(by_alias=True))
    assert {key: now for key, _, now in changes} == {
        "concept.prior.count": 1,
        "output.dir": str(tmp_path / "trial"),
        "train.checkpoint.every": 1,
        "train.execution": "compile",  # as 2000 steps would be run
        "train.preview.count": 1,
        "train.preview.every": 1,
        "train.preview.prompts": ["V*"],
        "train.steps": 2,
    }


def test_a_trial(tiny_sdxl: Path, tmp_path: Path) -> None:
    preview = {"prompts": ["a V*"]}
    given = recipe(tiny_sdxl, tmp_path, train__preview=preview, train__steps=100)
    before = contents(tmp_path)
    found = list(trial_run.try_recipe(given))
    assert [(one.level, one.about) for one in found] == [
        ("ok", "trial"), ("ok", "time"), ("ok", "memory"),
    ]  # fmt: skip
    assert "a preview" in found[1].text and "the whole run about" in found[1].text
    assert contents(tmp_path) == before


@pytest.mark.parametrize("outcome", [KeyboardInterrupt, UserError("no", "here", "mend")])
def test_a_trial_that_fails_leaves_nothing(
    outcome: Any, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, words: list[str], tensorboard: bool) -> None:
        assert (folder / "recipe.yaml").exists() and folder.parent == tmp_path
        raise outcome

    given = recipe(tiny_sdxl, tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(trial_run, "_command", fail)
    if outcome is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            list(trial_run.try_recipe(given))
    else:
        assert list(trial_run.try_recipe(given)) == [
            Finding("problem", "trial", "no\nhere", "mend")
        ]
    assert contents(tmp_path) == before


def test_a_trial_that_is_terminated_leaves_nothing(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its folder nor its process."""
    given = recipe(tiny_sdxl, tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(
        trial_run, "_PROGRAM", "import os, time; print(os.getpid()); time.sleep(60)"
    )
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    started: list[int] = []

    def end_it() -> None:
        while not started:
            time.sleep(0.02)
            started.extend(int(log.read_text() or 0) for log in tmp_path.glob(".tlora-*/log"))
            if started == [0]:
                started.clear()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_it, daemon=True).start()
    with pytest.raises(SystemExit) as ended:
        list(trial_run.try_recipe(given))
    assert ended.value.code == 128 + signal.SIGTERM
    assert contents(tmp_path) == before
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    code = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    with pytest.raises(UserError) as error:
        trial_run._python(tmp_path, ["-c", code])
    assert "ended by SIGKILL" in error.value.what and "out of memory" in error.value.do


def test_the_memory_of_a_process_is_its_own(tmp_path: Path) -> None:
    """Not that of this one, which is larger and starts it."""
    code = (
        "import runpy; x = bytearray(200_000_000); from pathlib import Path\n"
        "print([l.split()[1] for l in open('/proc/self/status') if 'VmHWM' in l][0])"
    )
    assert 200e6 < int(trial_run._python(tmp_path, ["-c", code])) * 1024 < 300e6
    assert peak_memory(torch.device("cpu")) > 300e6


def test_an_error_of_the_command_is_told_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        trial_run._python(
            tmp_path, ["-m", "tlora_cli", "train", "--config", f"{tmp_path}/none.yaml"]
        )
    assert error.value.args == (
        "there is no such recipe", str(tmp_path / "none.yaml"), "check the path"
    )  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["log"]
