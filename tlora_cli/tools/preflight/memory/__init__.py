"""The memory that a run takes, computed without weights and without a GPU."""

from tlora_cli.tools.preflight.memory.plan import (
    USABLE,
    MemoryPlan,
    Phase,
    attach_planned,
    folder_of,
    plan_memory,
    planned_denoiser,
)

__all__ = [
    "USABLE",
    "MemoryPlan",
    "Phase",
    "attach_planned",
    "folder_of",
    "plan_memory",
    "planned_denoiser",
]
