"""How much memory a run takes, computed without weights and without a GPU."""

from tlora_cli.memory.plan import MemoryPlan, Phase, plan_memory

__all__ = ["MemoryPlan", "Phase", "plan_memory"]
