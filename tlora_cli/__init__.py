"""T-LoRA: teach a diffusion model a new thing from one photograph without overfitting."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlora_cli.formulas.schedules import RankSchedule
    from tlora_cli.foundation.errors import UserError
    from tlora_cli.injection.adapter import Adapter
    from tlora_cli.injection.attach import attach
    from tlora_cli.injection.load import load_adapter

__all__ = ["Adapter", "RankSchedule", "UserError", "attach", "load_adapter"]

_HOME = {
    "Adapter": "injection.adapter",
    "RankSchedule": "formulas.schedules",
    "UserError": "foundation.errors",
    "attach": "injection.attach",
    "load_adapter": "injection.load",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `tlora` can check a recipe without torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
