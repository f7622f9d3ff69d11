"""Variables that launchers, clusters and libraries leave behind, and what a run does about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tlora_cli.foundation.errors import UserError

COUNTS: Mapping[str, str] = {
    "WORLD_SIZE": "torchrun, accelerate launch or deepspeed",
    "LOCAL_WORLD_SIZE": "torchrun",
    "OMPI_COMM_WORLD_SIZE": "mpirun (Open MPI)",
    "PMI_SIZE": "mpirun (MPICH, Intel MPI)",
    "MV2_COMM_WORLD_SIZE": "mpirun (MVAPICH)",
    "MPI_LOCALNRANKS": "mpirun (Intel MPI)",
}
"""Variable with the number of processes of a job -> who sets it."""
TASKS, TASK = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"
"""Slurm's own. `srun` also starts jobs that have nothing to do with each other."""

FOR_LAUNCHED = (
    "ACCELERATE_",
    "DEEPSPEED_",
    "FSDP_",
    "FP8_",
    "MEGATRON_LM_",
    "OMPI_COMM_WORLD_",
    "MV2_COMM_WORLD_",
    "MPI_LOCAL",
    "PARALLELISM_CONFIG_",
    "PMI_",
    "PMIX_",
    "TORCHELASTIC_",
)
"""Starts of the names of variables by which a launcher tells accelerate and torch how to train."""
NAMES_FOR_LAUNCHED = {
    "CROSS_RANK",
    "CROSS_SIZE",
    "FORK_LAUNCHED",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "NODE_RANK",
    "RANK",
    "ROLE_NAME",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "WORLD_SIZE",
    "XLA_DOWNCAST_BF16",
    "XLA_USE_BF16",
}
"""Whole names of others."""
CARDS, DRIVER = "CUDA_VISIBLE_DEVICES", Path("/dev/nvidiactl")
"""Variable that chooses among cards, and what is there if a driver is."""
MOST_NAMED = 4
"""Variables that a notice names."""

_OFF = ("", "0", "false", "no", "off")
CHANGES_NUMBERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "NVIDIA_TF32_OVERRIDE": (("",), "the card computes fp32 products in another precision"),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": (_OFF, "the card computes fp32 products in TF32"),
    "ONEDNN_DEFAULT_FPMATH_MODE": (("", "strict"), "the CPU computes fp32 products less exactly"),
    "DNNL_DEFAULT_FPMATH_MODE": (("", "strict"), "the CPU computes fp32 products less exactly"),
    "DIFFUSERS_ATTN_BACKEND": (("", "native"), "attention runs on another kernel"),
    "TORCH_COMPILE_DISABLE": (_OFF, "execution: compile compiles nothing"),
    "TORCHDYNAMO_DISABLE": (_OFF, "execution: compile compiles nothing"),
}
"""Variable of a library -> values that change nothing, in lower case, and what others change."""


def check_alone() -> None:
    """Raise a UserError if this process is one of several that work on one job."""
    for name, who in COUNTS.items():
        value = os.environ.get(name, "")
        if value.strip().isdigit() and int(value) > 1:
            raise UserError(
                f"tlora trains in one process, and {name}={value} says that this is one of "
                f"{int(value)}, started by {who}",
                where=f"environment variable {name}",
                do="start it as `tlora train`, by itself; in a shell where a launcher left its "
                f"variables, run `unset {' '.join(_counts_that_are_set())}` first",
            )


def _counts_that_are_set() -> list[str]:
    return [name for name in COUNTS if name in os.environ]


def left_by_launchers() -> dict[str, str]:
    """Return the variables that would tell accelerate and torch how to train."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(FOR_LAUNCHED) or name in NAMES_FOR_LAUNCHED
    }


def notices() -> list[str]:
    """Return what there is to say of the environment, one line a thing."""
    said = []
    if left := left_by_launchers():
        named = [f"{name}={value}" for name, value in left.items()][:MOST_NAMED]
        more = f" and {len(left) - len(named)} more" if len(left) > len(named) else ""
        said.append(
            f"variables of a launcher are set and not used: {', '.join(named)}{more}; the recipe "
            "alone says how to train"
        )
    tasks = os.environ.get(TASKS, "")
    if tasks.isdigit() and int(tasks) > 1:
        said.append(
            f"this is task {os.environ.get(TASK, '?')} of {tasks} that srun started; tlora trains "
            "in one process, so each of them is a run of its own and needs its own output.dir"
        )
    if os.environ.get(CARDS, "0").strip() in ("", "-1") and DRIVER.exists():
        said.append(f"{CARDS} is set so that no card can be used, and one is there; unset it")
    for name, (harmless, what) in CHANGES_NUMBERS.items():
        value = os.environ.get(name)
        if value is not None and value.strip().lower() not in harmless:
            said.append(f"{name}={value} is set: {what}; unset it unless you mean it")
    return said


@contextmanager
def without_launchers(notify: Callable[[str], None]) -> Iterator[None]:
    """Hide what launchers left, for as long as the block lasts, and say so.

    Args:
        notify: shows a line.

    Raises:
        UserError: if this process is one of several that work on one job.
    """
    check_alone()
    for line in notices():
        notify(line)
    hidden = left_by_launchers()
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
