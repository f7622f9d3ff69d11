"""Hold scripts/true_size.py: memory stage by stage, and a whole measurement on a tiny base."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import true_size
from benchmark.process_memory import watch
from single_file import write_sdxl

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
GROWS = """
import time
print("small", flush=True)
time.sleep(1)
whole = bytearray(b"1" * 80_000_000)
print("large", flush=True)
time.sleep(1)
"""


@LINUX
def test_memory_is_told_by_what_the_process_said_last() -> None:
    found = watch([sys.executable, "-c", GROWS])
    assert (found.code, found.said) == (0, ["small", "large"])
    (whole, own), (most, grown) = found.stages["small"], found.stages["large"]
    assert grown > 80e6 and most >= grown and found.peak >= most
    assert found.own == max(grown, own) and whole >= own
    assert watch([sys.executable, "-c", "raise SystemExit(3)"]).code == 3


@LINUX
@pytest.mark.full
def test_a_whole_measurement(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(tiny_sdxl, tmp_path / "random-sdxl")
    write_sdxl(tiny_sdxl, tmp_path / "random-sdxl.safetensors", dtype=torch.float16)
    monkeypatch.setattr(true_size, "SIDE", 64)
    monkeypatch.setattr(true_size, "RANK", 4)
    assert true_size.main([str(tmp_path), "--cases", "folder", "--steps", "2"]) == 0
    row = json.loads((tmp_path / "figures.json").read_text())["folder"]
    assert row["files"]["result"] == pytest.approx(row["planned files"]["result"], rel=0.1)
    assert row["train"]["peak"] > 3e8 and row["to be free"] <= row["planned"]
    assert (tmp_path / "figures.md").read_text().count("\n") == 3
    assert "| folder | " in capsys.readouterr().out
