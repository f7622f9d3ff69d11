"""Wrappers around a model or its parts: what is inside, under the names that it has without them.

`torch.compile(module)` is a module that holds the other as `_orig_mod`; DataParallel, its
distributed form and the like hold it as `module`. Adapters act on what is inside, where the same
layers run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_INSIDE = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
"""Class of a wrapper, of torch -> name of the module that it holds."""


def unwrapped(model: Any) -> Any:
    """Return what wrappers of torch hold; the model itself if there is none."""
    while (inside := _inside(model)) is not None:
        model = inside
    return model


def modules_of(denoiser: nn.Module) -> dict[str, nn.Module]:
    """Return a model's modules by full name, wrappers inside it left out of both."""
    found = {}
    for name, module in unwrapped(denoiser).named_modules():
        if _inside(module) is None:
            kept = (part for part in name.split(".") if part not in _INSIDE.values())
            found[".".join(kept)] = module
    return found


def _inside(model: Any) -> Any:
    kind = type(model)
    name = _INSIDE.get(kind.__name__)
    if name is None or kind.__module__.partition(".")[0] != "torch":
        return None
    return model._modules.get(name)
