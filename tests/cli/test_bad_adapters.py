"""Adapters and sampling settings that don't fit: what is said."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Cli = Callable[..., str]


def rewritten(adapter: Path, target: Path, header: dict[str, str], **tensors: Any) -> Path:
    """Write the adapter again with other header values or tensors."""
    with safe_open(adapter, "pt") as file:
        metadata = {**file.metadata(), **header}
    save_file({**load_file(adapter), **tensors}, target, metadata=metadata)
    return target


def test_adapter_of_another_family(cli: Cli, trained: Path, tiny_flux: Path) -> None:
    message = cli("sample", "--adapter", trained, "--prompt", "a V*", "--base", tiny_flux)
    assert f"the base {tiny_flux} is a FluxPipeline, not a sdxl model" in message


def test_adapter_of_another_model(cli: Cli, trained: Path, tmp_path: Path) -> None:
    tensors = load_file(trained)
    name = next(key for key in tensors if "lora_A" in key)
    other = {name: torch.zeros(tensors[name].shape[0], 7)}
    path = rewritten(trained, tmp_path / "other.safetensors", {}, **other)
    message = cli("sample", "--adapter", path, "--prompt", "a V*")
    assert "in the model but" in message
    assert "use the base model that the adapter was trained on" in message


@pytest.mark.parametrize("rank", ["8", "1000000000000"])
def test_adapter_of_another_rank(cli: Cli, trained: Path, tmp_path: Path, rank: str) -> None:
    path = rewritten(trained, tmp_path / "other.safetensors", {"tlora.rank": rank})
    message = cli("sample", "--adapter", path, "--prompt", "a V*")
    assert "do not fit its header" in message


def test_truncated_adapter(cli: Cli, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(trained.read_bytes()[:-100])
    message = cli("sample", "--adapter", path, "--prompt", "a V*")
    assert "truncated or damaged" in message
    assert str(path) in message


def test_foreign_safetensors(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"model.layers.0.weight": torch.zeros(2, 2)}, path)
    message = cli("sample", "--adapter", path, "--prompt", "a V*")
    assert str(path) in message


def test_pickle_with_code_is_not_run(cli: Cli, tmp_path: Path, tiny_sdxl: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path}/attacked",)

    path = tmp_path / "lora.pt"
    torch.save({"a": Attack()}, path)
    message = cli("sample", "--adapter", path, "--prompt", "a dog", "--base", tiny_sdxl)
    assert "code" in message
    path.write_bytes(pickle.dumps(Attack()))
    assert "code" in cli("convert", path, "--output", tmp_path / "out.safetensors")
    assert not (tmp_path / "attacked").exists()


def test_damaged_sampling_settings(cli: Cli, trained: Path, tmp_path: Path) -> None:
    header = {"tlora.sampling": '{"steps": "many"}'}
    path = rewritten(trained, tmp_path / "odd.safetensors", header)
    message = cli("sample", "--adapter", path, "--prompt", "a V*")
    assert "the sampling settings in the adapter's header are damaged" in message


SAMPLING: dict[str, tuple[list[str], str]] = {
    "no prompt": ([], "no prompt was given"),
    "scheduler": (["--prompt", "a V*", "--scheduler", "eular"], "scheduler 'eular' is not known"),
    "size": (["--prompt", "a V*", "--width", "65"], "width 65 is not a positive multiple of 8"),
    "precision": (["--prompt", "a V*", "--precision", "fp8"], "--precision fp8 is not known"),
    "prompts file": (["--prompts-file", "nothing.txt"], "there is no such prompts file"),
}


@pytest.mark.parametrize("case", SAMPLING)
def test_sampling_arguments(cli: Cli, trained: Path, case: str) -> None:
    arguments, words = SAMPLING[case]
    assert words in cli("sample", "--adapter", trained, *arguments)


def test_a_concept_that_is_not_known(cli: Cli, trained: Path, tmp_path: Path) -> None:
    header = {"tlora.placeholder": "", "tlora.class_name": ""}
    path = tmp_path / "plain.safetensors"
    with safe_open(trained, "pt") as file:
        metadata = {k: v for k, v in file.metadata().items() if k not in header}
    save_file(load_file(trained), path, metadata=metadata)
    message = cli("sample", "--adapter", path, "--prompt", "a V* on a beach")
    assert "the prompt says V*" in message
    assert "--concept" in message
