"""Run a module on other weights, and leave it as it was after every call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Own = Mapping[str, Tensor]


def swap_weights(module: nn.Module, make: Callable[[Own], Mapping[str, Tensor]]) -> list[
    RemovableHandle
]:  # fmt: skip
    """Hook a module so that each call runs on the weights that `make` returns.

    The module's own parameters are back after the call, also if it fails, so names, dtypes and
    values are untouched.

    Args:
        module: any module with parameters of its own.
        make: the module's own parameters -> those to run with, by name, in the same dtype.

    Returns:
        The hooks; remove them to end it.
    """
    # The dictionary is written, not the attribute: that takes parameters only, and W' is a function
    # of W that gradients must flow through.
    held: list[dict[str, nn.Parameter | None]] = []

    def enter(_: nn.Module, inputs: Any) -> None:
        own = {name: p for name, p in module._parameters.items() if p is not None}
        made = make(own)
        held.append({name: module._parameters[name] for name in made})
        module._parameters.update(made)  # type: ignore[arg-type]

    def leave(_: nn.Module, inputs: Any, output: Any) -> None:
        if held:
            module._parameters.update(held.pop())

    return [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    ]
