"""A Hub that can't be reached is told at once, and what is in the cache is used without it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import fake_hub, reach
from huggingface_hub import constants
from training_runs import write_recipe

from tlora_cli.cli.app import main
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline, read_index
from tlora_cli.foundation import hub
from tlora_cli.foundation.errors import Status
from tlora_cli.foundation.hub_errors import fetching

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this process ask, through none of the machine's own settings."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "_answers", {})
    reach(monkeypatch, NOBODY, tmp_path / "cache")


COMMANDS: dict[str, Callable[[Path, Path], list[Any]]] = {
    "train": lambda base, tmp: ["train", "--config", write_recipe(base, tmp, base="me/model")],
    "validate": lambda base, tmp: ["validate", write_recipe(base, tmp, base="me/model")],
    "mask": lambda base, tmp: [
        *("mask", "toy:momo/1", "--class", "cat", "--model", "me/model", "--out", tmp / "masks"),
    ],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nobody_answers(
    name: str,
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The library would try five times, and wait for half a minute between."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr("sys.argv", ["tlora", *map(str, COMMANDS[name](tiny_sdxl, tmp_path))])
    status = main()
    out, errors = capfd.readouterr()
    said = out + errors
    assert status == Status.LATER, said
    assert sum(slept) < 1
    place = tmp_path / "cache"
    warning = f"warning: {NOBODY} can't be reached; me/model is looked for in {place} alone"
    assert errors.splitlines().count(warning) == 1
    assert "HF_HUB_OFFLINE" not in said and constants.HF_HUB_OFFLINE is False


def test_what_is_in_the_cache_is_used(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Base("me/tiny")
    with fake_hub({"me/tiny": tiny_sdxl}) as (address, _):
        reach(monkeypatch, address, tmp_path / "cache")
        index = read_index(base)
    reach(monkeypatch, NOBODY, tmp_path / "cache")
    with pytest.warns(UserWarning, match="looked for in"):
        assert read_index(base) == index
    assert index["_class_name"] == "StableDiffusionXLPipeline"


def test_an_answer_holds_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    knocks: list[str] = []
    monkeypatch.setattr(hub, "_knock", lambda address: bool(knocks.append(address)))
    assert [hub.reachable("https://a"), hub.reachable("https://a")] == [False, False]
    assert knocks == ["https://a"]
    monkeypatch.setattr(hub, "FRESH", -1.0)
    assert not hub.reachable("https://a") and len(knocks) == 2
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert hub.reachable("https://a"), "only the proxy knows"


def test_the_download_leaves_out_what_is_not_loaded() -> None:
    """By the names that stabilityai/stable-diffusion-xl-base-1.0 has."""
    from huggingface_hub.utils import filter_repo_objects

    files = {
        "model_index.json": "both",
        "unet/config.json": "both",
        "tokenizer/merges.txt": "both",
        "unet/diffusion_pytorch_model.safetensors": "fp32",
        "unet/diffusion_pytorch_model.fp16.safetensors": "fp16",
        "unet/model.onnx": "",
        "unet/model.onnx_data": "",
        "sd_xl_base_1.0.safetensors": "",
        "vae_1_0/diffusion_pytorch_model.fp16.safetensors": "fp16",
    }
    for variant, kind in ((None, "fp32"), ("fp16", "fp16")):
        words = fetching("a/b", variant).replace('"', "").split()
        given: dict[str, list[str]] = {"--include": [], "--exclude": []}
        for option, value in zip(words[3::2], words[4::2], strict=True):
            given[option].append(value)
        taken = filter_repo_objects(
            files, allow_patterns=given["--include"], ignore_patterns=given["--exclude"] or None
        )
        assert set(taken) == {name for name, of in files.items() if of in ("both", kind)}


def test_a_built_in_base_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is no Hub id, and its files come with the program."""
    monkeypatch.setattr(hub, "_knock", lambda address: pytest.fail(f"{address} was asked"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pipeline(FAMILIES["sdxl"], Base("toy-sdxl"))
