"""Run folders with damaged metrics and checkpoints."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from training_runs import run, same_tensors

from tlora_cli import UserError
from tlora_cli.training import run_folder
from tlora_cli.training.report.reading import read_run

LINES = {
    "nested too deeply": b"[" * 100_000,
    "a loss beyond all floats": b'{"step": 1, "timestep": 1, "loss": 1' + b"0" * 400 + b"}",
    "no text": b"\xff\xfe\x00",
    "no record": b"[1, 2]",
    "a step that is no number": b'{"step": "x", "loss": 1, "timestep": 1}',
}


def test_damaged_metrics_are_left_out_of_the_page_and_of_a_resumed_run(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    run(tiny_sdxl, tmp_path, train__steps=4)
    folder = run_folder.RunFolder(tmp_path / "run")
    good = folder.metrics.read_bytes()
    folder.metrics.write_bytes(b"\n".join(LINES.values()) + b"\n" + good)
    seen = read_run(folder.path)
    assert [step.step for step in seen.metrics.steps] == [1, 2, 3, 4]
    assert "5 lines of metrics.jsonl could not be read" in " ".join(seen.notes)
    run(tiny_sdxl, tmp_path, resume=True, train__steps=6)
    kept = folder.metrics.read_bytes()
    assert good in kept and not any(line in kept for line in list(LINES.values())[2:])


def test_a_checkpoint_with_one_wrong_bit_is_passed_over(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Torch leaves out the checksums of the archive, and would go on with the wrong weights."""
    whole = run(tiny_sdxl, tmp_path / "whole", train__steps=8)
    run(tiny_sdxl, tmp_path / "hurt")
    folder = tmp_path / "hurt" / "run" / "checkpoints" / "checkpoint-000006"
    hurt = folder / "training_state.pt"
    with zipfile.ZipFile(hurt) as archive:
        records = [archive.read(name) for name in archive.namelist() if "/data/" in name]
    record = max(records, key=len)
    data = bytearray(hurt.read_bytes())
    data[data.index(record) + len(record) // 2] ^= 1
    hurt.write_bytes(data)
    torch.load(hurt, weights_only=True)  # is content with it
    with pytest.warns(UserWarning, match="checkpoint-000006 can't be loaded"):
        resumed = run(tiny_sdxl, tmp_path / "hurt", resume=True, train__steps=8)
    assert whole.adapter and resumed.adapter
    assert same_tensors(whole.adapter, resumed.adapter)


def test_a_checkpoint_of_another_step_is_passed_over(tiny_sdxl: Path, tmp_path: Path) -> None:
    run(tiny_sdxl, tmp_path)
    folder = tmp_path / "run" / "checkpoints"
    shutil.rmtree(folder / "checkpoint-000006")
    (folder / "checkpoint-000004").rename(folder / "checkpoint-000005")
    with (
        pytest.warns(UserWarning, match="checkpoint-000005 can't be loaded"),
        pytest.raises(UserError, match="none of the checkpoints can be loaded"),
    ):
        run(tiny_sdxl, tmp_path, resume=True, train__steps=8)
