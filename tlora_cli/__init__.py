"""T-LoRA: teach a diffusion model a new thing from one photograph without overfitting."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlora_cli.adapter import Adapter
    from tlora_cli.attachment import attach
    from tlora_cli.errors import UserError
    from tlora_cli.loading import load_adapter
    from tlora_cli.schedules import RankSchedule

__all__ = ["Adapter", "RankSchedule", "UserError", "attach", "load_adapter"]

_HOME = {
    "Adapter": "adapter",
    "RankSchedule": "schedules",
    "UserError": "errors",
    "attach": "attachment",
    "load_adapter": "loading",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `tlora` can check a recipe without torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
