"""Variables that launchers and clusters leave behind: the weights are the recipe's, or it says why.

Before, `ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4` gave other weights in silence, a lone
`LOCAL_RANK` was an internal error, and `WORLD_SIZE=2` waited half an hour for a second process.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from training_runs import run, same_tensors, write_recipe

from tlora_cli.cli.app import main
from tlora_cli.foundation import environment
from tlora_cli.foundation.environment import CHANGES_NUMBERS, COUNTS, notices
from tlora_cli.foundation.errors import UserError

LEFT: dict[str, dict[str, str]] = {
    "accumulation": {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
    "mixed precision": {"ACCELERATE_MIXED_PRECISION": "bf16"},
    "a device": {"ACCELERATE_TORCH_DEVICE": "meta"},
    "clipping": {"ACCELERATE_GRADIENT_CLIPPING": "1e-9"},
    "deepspeed": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
    "megatron": {"ACCELERATE_USE_MEGATRON_LM": "true", "MEGATRON_LM_TP_DEGREE": "2"},
    "fsdp": {"ACCELERATE_USE_FSDP": "true", "FSDP_SHARDING_STRATEGY": "FULL_SHARD"},
    "parallelism": {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"},
    "dynamo": {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_DYNAMO_MODE": "max-autotune"},
    "fp8": {"ACCELERATE_FP8_BACKEND": "TE", "FP8_OPT_LEVEL": "O2"},
    "sagemaker": {"ACCELERATE_USE_SAGEMAKER": "true"},
    "a rank alone": {"LOCAL_RANK": "0"},
    "one process of torchrun": {
        "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577", "TORCHELASTIC_RUN_ID": "none",
    },
    "one process of mpirun": {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    "a rank of MPICH": {"PMI_RANK": "0"},
    "a size that is no number": {"WORLD_SIZE": "two"},
    "XLA": {"XLA_USE_BF16": "1"},
    "a batch job of Slurm": {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"},
}  # fmt: skip


@pytest.fixture(scope="module")
def alone(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the adapter that the recipe gives in a clean environment."""
    outcome = run(tiny_sdxl, tmp_path_factory.mktemp("alone"), train__steps=2)
    assert outcome.adapter is not None
    return outcome.adapter


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_what_a_launcher_left_changes_nothing_and_is_told(
    left: dict[str, str],
    alone: Path,
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    outcome = run(tiny_sdxl, tmp_path, train__steps=2)
    assert outcome.adapter is not None
    assert same_tensors(outcome.adapter, alone)
    assert all(os.environ[name] == value for name, value in left.items()), "put back afterwards"
    told = capfd.readouterr().err
    used_by_nobody = next(iter(left)).startswith("SLURM")
    assert ("variables of a launcher are set and not used" in told) != used_by_nobody


@pytest.mark.parametrize("name", COUNTS)
def test_one_of_several_processes_is_refused_at_once(
    name: str, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "2")
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        run(tiny_sdxl, tmp_path)
    assert time.monotonic() - began < 5
    assert "tlora trains in one process" in refused.value.what
    assert f"{name}=2" in refused.value.what and name in refused.value.do
    assert not (tmp_path / "run").exists()


def test_the_command_line_says_it_too(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recipe = write_recipe(tiny_sdxl, tmp_path)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for words in (["train", "--config"], ["validate"]):
        monkeypatch.setattr("sys.argv", ["tlora", *words, str(recipe)])
        assert main() == 2
        said = "".join(capfd.readouterr())
        assert "tlora trains in one process, and WORLD_SIZE=2" in said
        assert "unset WORLD_SIZE" in said


def test_tasks_of_srun_are_told_that_each_is_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not notices()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "2")
    [line] = notices()
    assert "task 2 of 4" in line and "its own output.dir" in line


@pytest.mark.parametrize("value", ["", "-1", " "])
def test_a_card_that_is_hidden_is_told(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "DRIVER", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    [line] = notices()
    assert "CUDA_VISIBLE_DEVICES is set so that no card can be used" in line
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not notices()


VALUES = {"NVIDIA_TF32_OVERRIDE": "1", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
VALUES |= {"DNNL_DEFAULT_FPMATH_MODE": "ANY", "DIFFUSERS_ATTN_BACKEND": "flash"}


@pytest.mark.parametrize("name", CHANGES_NUMBERS)
def test_what_changes_the_numbers_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value: Any = VALUES.get(name, "1")
    monkeypatch.setenv(name, value)
    [line] = notices()
    assert line.startswith(f"{name}={value} is set: ")
    for harmless in CHANGES_NUMBERS[name][0]:
        monkeypatch.setenv(name, harmless.upper())
        assert not notices()
