"""Files that are missing, damaged, hostile or something else: one short UserError each."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_runs import REFERENCE
from safetensors.torch import load_file, save, save_file

from tlora_cli import UserError
from tlora_cli.formats import read_adapter, read_origin

GOOD = REFERENCE / "sdxl_lora_none" / "pytorch_lora_weights.safetensors"
AGAIN = "download or copy the file again"


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def with_header_length(length: int) -> bytes:
    return struct.pack("<Q", length) + b"{" + b" " * 200


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


DAMAGED = "the adapter file is truncated or damaged"
NOT_TORCH = "the file is not a PyTorch file, or it is truncated or damaged"
BAD: dict[str, tuple[str, Callable[[], bytes], str, str]] = {
    "empty": ("a.safetensors", bytes, "the adapter file is empty", AGAIN),
    "empty pickle": ("a.pt", bytes, "the adapter file is empty", AGAIN),
    "truncated": ("a.safetensors", lambda: GOOD.read_bytes()[:-9], DAMAGED, AGAIN),
    "cut in its header": ("a.safetensors", lambda: GOOD.read_bytes()[:100], DAMAGED, AGAIN),
    "longer than it says": ("a.safetensors", lambda: GOOD.read_bytes() + b"x", DAMAGED, AGAIN),
    "huge header": ("a.safetensors", lambda: with_header_length(2**62), DAMAGED, AGAIN),
    "header past the end": ("a.safetensors", lambda: with_header_length(10**6), DAMAGED, AGAIN),
    "no JSON": ("a.safetensors", lambda: with_header_length(100), DAMAGED, AGAIN),
    "text": ("a.safetensors", lambda: b"hello", "the file is not a safetensors file", AGAIN),
    "binary": (
        "a.safetensors",
        lambda: bytes(range(256)),
        "the file is not a safetensors file",
        AGAIN,
    ),
    "web page": (
        "a.safetensors",
        lambda: b"\n<!DOCTYPE html>\n<html>",
        "the file is a web page, not an adapter",
        AGAIN,
    ),
    "LFS pointer": (
        "a.safetensors",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "the file is a Git LFS pointer, not the adapter itself",
        "run `git lfs pull`",
    ),
    "pickle by another name": (
        "a.safetensors",
        lambda: saved({"a": torch.zeros(2)}),
        "the file is a PyTorch pickle, though its name ends in .safetensors",
        "rename it to end in .pt",
    ),
    "truncated pickle": ("a.pt", lambda: saved({"a": torch.zeros(99)})[:-40], NOT_TORCH, AGAIN),
    "text as pickle": ("a.bin", lambda: b"hello, not a pickle", NOT_TORCH, AGAIN),
    "list": (
        "a.pt",
        lambda: saved([torch.zeros(2)]),
        "the file holds something other than named tensors",
        "get the adapter as a .safetensors file",
    ),
    "nested": (
        "a.ckpt",
        lambda: saved({"state_dict": {"a": torch.zeros(2)}}),
        "the file holds something other than named tensors",
        "get the adapter as a .safetensors file",
    ),
    "module": (
        "a.pth",
        lambda: saved(torch.nn.Linear(2, 2)),
        "the file contains code or Python objects, not only tensors; it was not run",
        "get the adapter as a .safetensors file",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(case: str, tmp_path: Path) -> None:
    name, make, message, remedy = BAD[case]
    file = tmp_path / name
    file.write_bytes(make())
    for read in (lambda: read_adapter(file, []), lambda: read_origin(file)):
        with pytest.raises(UserError) as refused:
            read()
        assert str(refused.value) == f"{message}\n  where: {file}\n  fix:   {remedy}"


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize("wrapping", ["torch", "bare", "bare protocol 2", "zip"])
def test_code_in_a_pickle_is_not_run(ending: str, wrapping: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = {"transformer_blocks.0.attn.processor.to_q_lora.down.weight": Hostile(trace)}
    file = tmp_path / f"a{ending}"
    if wrapping == "torch":
        torch.save(content, file)
    elif wrapping == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
    else:
        file.write_bytes(pickle.dumps(content, 2 if wrapping.endswith("2") else 4))
    for read in (lambda: read_adapter(file, []), lambda: read_origin(file)):
        with pytest.raises(UserError) as refused:
            read()
        assert str(refused.value) == (
            "the file contains code or Python objects, not only tensors; it was not run\n"
            f"  where: {file}\n  fix:   get the adapter as a .safetensors file"
        )
    assert not trace.exists()
    pickle.loads(pickle.dumps(content))  # the trap does work
    assert trace.exists()


def test_paths_that_hold_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        read_adapter(tmp_path / "no.safetensors", [])
    assert str(refused.value) == (
        f"the adapter file does not exist\n  where: {tmp_path / 'no.safetensors'}\n"
        "  fix:   check the path"
    )
    with pytest.raises(UserError) as refused:
        read_adapter(tmp_path, [])
    assert refused.value.what == "the folder holds no adapter file"
    assert refused.value.do == (
        "name the file itself; known names are adapter.safetensors, "
        "pytorch_lora_weights.safetensors, lora.pt, adapter_model.safetensors"
    )
    for step in (100, 90):
        (tmp_path / f"checkpoint-{step}").mkdir()
    with pytest.raises(UserError) as refused:
        read_adapter(tmp_path, [])
    assert refused.value.do == (
        f"name one of its checkpoints, such as {tmp_path / 'checkpoint-100'}"
    )


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"x")

    def refuse(path: Path, *_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so chmod tests nothing
    with pytest.raises(UserError, match="can't be read: Permission denied"):
        read_adapter(file, [])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_numbers_that_are_not_finite(value: float, ending: str, tmp_path: Path) -> None:
    tensors = load_file(GOOD)
    name = sorted(tensors)[5]
    tensors[name][0, 0] = value
    file = tmp_path / f"a{ending}"
    if ending == ".pt":
        torch.save(tensors, file)
    else:
        save_file(tensors, file)
    with pytest.raises(UserError) as refused:
        read_adapter(file, [])
    assert refused.value.what == (
        f"tensor {name} holds NaN or infinity: the training that made it diverged"
    )


def test_integers_are_refused(tmp_path: Path) -> None:
    name = "unet.mid_block.a.lora_A.weight"
    save_file({name: torch.ones(2, 2, dtype=torch.int8)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError) as refused:
        read_adapter(tmp_path / "a.safetensors", [])
    assert refused.value.what == f"tensor {name} holds int8, not real numbers"


FOREIGN = {
    "model.diffusion_model.input_blocks.0.0.weight": (
        "the file is a whole model in one file, not an adapter"
    ),
    "double_blocks.0.img_attn.qkv.weight": "the file is a whole transformer, not an adapter",
    "transformer_blocks.0.attn.to_q.weight": "the file is a whole transformer, not an adapter",
    "down_blocks.0.resnets.0.conv1.weight": "the file is a whole UNet, not an adapter",
    "text_model.encoder.layers.0.mlp.fc1.weight": "the file is a text encoder, not an adapter",
    "decoder.conv_in.weight": "the file is a VAE or an encoder, not an adapter",
    "clip_g": "the file is a textual inversion embedding",
    "double_blocks.0.processor.qkv_lora1.down": "the file is a LoRA whose names are not known",
    "something": "the file is no adapter that tlora knows; it holds something",
}


@pytest.mark.parametrize("key", FOREIGN)
def test_other_files_are_named(key: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({key: torch.ones(2)}, file)
    for read in (lambda: read_adapter(file, []), lambda: read_origin(file)):
        with pytest.raises(UserError) as refused:
            read()
        assert str(refused.value) == (
            f"{FOREIGN[key]}\n  where: {file}\n  fix:   use an adapter made by tlora, a diffusers "
            "or kohya LoRA, or a published T-LoRA"
        )


def test_a_file_without_tensors(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(save({}))
    with pytest.raises(UserError, match="the file holds no tensors"):
        read_adapter(file, [])
    header = json.dumps({"__metadata__": {"tlora.format_version": "1"}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UserError, match="the adapter's header is damaged"):
        read_adapter(file, [])
