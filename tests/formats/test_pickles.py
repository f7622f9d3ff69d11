"""Pickles that lie, run code or take all memory are refused."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tlora_cli import UserError
from tlora_cli.formats import read_adapter, read_origin

LAYER = "transformer_blocks.0.attn.to_q"
PUBLISHED = "transformer_blocks.0.attn.processor.to_q_lora"


def refused(file: Path, layers: Any = ()) -> str:
    with pytest.raises(UserError) as error:
        read_adapter(file, layers)
    return error.value.what


def published_pickle(folder: Path) -> Path:
    """Write a published FLUX checkpoint of one layer."""
    file = folder / "lora.pt"
    tensors = {
        f"{PUBLISHED}.down.weight": torch.ones(2, 40),
        f"{PUBLISHED}.up.weight": torch.ones(30, 2),
    }
    torch.save(tensors, file)
    return file


def rewrite(file: Path, change: Callable[[str, bytes], bytes], compression: int = 0) -> None:
    """Write an archive again with other records."""
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(name, change(name, data))


def other_number(old: int, new: int) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        whole = b"J" + struct.pack("<i", new)
        return data.replace(b"K" + bytes([old]), whole) if name.endswith("data.pkl") else data

    return change


DAMAGED = "the file is not a PyTorch file, or it is truncated or damaged"
CODE = "the file contains code or Python objects, not only tensors; it was not run"


def test_a_whole_published_pickle_is_read(tmp_path: Path) -> None:
    assert set(read_adapter(published_pickle(tmp_path), []).layers) == {LAYER}


def test_a_storage_that_is_longer_than_its_record(tmp_path: Path) -> None:
    file = published_pickle(tmp_path)
    rewrite(file, other_number(80, 10**6))  # of 2 x 40 numbers
    assert refused(file) == DAMAGED


def test_a_tensor_that_is_larger_than_its_storage(tmp_path: Path) -> None:
    file = published_pickle(tmp_path)
    rewrite(file, other_number(40, 10**8))  # columns
    assert refused(file) == DAMAGED


def test_a_zip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = published_pickle(tmp_path)
    zeros = bytes(10**8)
    rewrite(file, lambda n, d: zeros if "/data/" in n else d, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 10**6
    # Torch would refuse it, too, but after unpacking it.
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was unpacked"))
    assert refused(file) == DAMAGED


def test_records_that_overlap(tmp_path: Path) -> None:
    """Many entries of the directory can name the same bytes of the file."""
    file = published_pickle(tmp_path)
    with zipfile.ZipFile(file, "a") as archive:
        first = archive.infolist()[-1]
        for number in range(400):
            again = zipfile.ZipInfo(f"archive/data/{number + 9}")
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(again, field, getattr(first, field))
            archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]
    assert refused(file) == DAMAGED


NESTED = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
PICKLES = {
    "tuples in tuples, as a key": b"\x80\x02}X\x01\0\0\0x\x85" + NESTED + b"K\x01s.",
    "a place far out in the memo": b"\x80\x02}r\0\0\0\x20.",
    "memory for the asking": pickle.dumps({"a": bytearray(9)}, 2),
    "an opcode that tensors don't need": b"\x80\x02}2.",
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_that_takes_all_time_or_memory(case: str, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(PICKLES[case])
    assert refused(file) == CODE
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", PICKLES[case])
        archive.writestr("archive/version", "3\n")
    assert refused(tmp_path / "a.pt") == CODE


def test_many_opcodes_end_in_time(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"\x80\x02" + b"(" * 30_000_000)
    assert refused(file) == DAMAGED


HPARAMS = {
    "aliases that double at each line": "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 50))
    + "class_name: *a49\n",
    "nested too deeply": "a: " + "[" * 100_000,
    "an infinite rank": "tlora: true\nrank: .inf\n",
}


@pytest.mark.parametrize("case", HPARAMS)
def test_an_hparams_file(case: str, tmp_path: Path) -> None:
    file = published_pickle(tmp_path)
    (tmp_path / "hparams.yml").write_text(HPARAMS[case])
    assert "hparams.yml" in refused(file)
    if "rank" not in HPARAMS[case]:
        with pytest.raises(UserError, match=r"hparams\.yml"):
            read_origin(file)
