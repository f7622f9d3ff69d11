"""The memory that a run takes, computed without weights and without a GPU."""

from tlora_cli.tools.preflight.memory.plan import (
    MemoryPlan,
    Phase,
    attach_planned,
    folder_of,
    plan_memory,
    planned_denoiser,
)

__all__ = ["MemoryPlan", "Phase", "attach_planned", "folder_of", "plan_memory", "planned_denoiser"]
