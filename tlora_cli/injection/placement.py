"""Whether the layers of an adapter run in their denoiser, when it is put on and in each call.

Hooks act where their layer runs. A program that puts another layer in its place, or has the work
done elsewhere (as `fuse_qkv_projections` does), would drop the adapter without an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

from tlora_cli.foundation.errors import UserError

FUSED = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
"""Layers of an attention that diffusers' `fuse_qkv_projections` replaces by one."""


class Placement:
    """The places of an adapter's layers.

    Args:
        modules: full name -> module, of the whole denoiser.
        layers: full names of the adapted ones; others than the denoiser's are not looked at.

    Raises:
        UserError: if one does not run where it stands.
    """

    def __init__(self, modules: Mapping[str, nn.Module], layers: Collection[str]) -> None:
        self._places: list[tuple[str, dict[str, Any], str, Any]] = []
        fusable: dict[int, nn.Module] = {}
        for name in layers:
            parent, _, own = name.rpartition(".")
            if name not in modules or parent not in modules:
                continue
            holder = modules[parent]
            self._places.append((name, holder._modules, own, holder._modules.get(own)))
            if own in FUSED:
                fusable[id(holder)] = holder
        self._fusable = list(fusable.values())
        self.check()

    def check(self) -> None:
        """Raise a UserError if a layer no longer runs."""
        for attention in self._fusable:
            if vars(attention).get("fused_projections") and _runs_fused(attention):
                raise UserError(
                    "the denoiser's queries, keys and values are fused, so the adapter's layers do "
                    "not run",
                    where="fuse_qkv_projections",
                    do="call unfuse_qkv_projections() on the pipeline",
                )
        for name, siblings, own, module in self._places:
            if siblings.get(own) is not module:
                raise UserError(
                    f"layer {name} was replaced after the adapter was put on it, so the adapter "
                    "would not act there",
                    do="put the adapter on after all other changes of the model",
                )


def check_ready(modules: Mapping[str, nn.Module]) -> None:
    """Raise a UserError if a denoiser can't take an adapter as it is.

    Args:
        modules: full name -> module, of the whole denoiser.
    """
    for name, module in modules.items():
        if type(module).__module__.partition(".")[0] == "peft":
            raise UserError(
                f"the denoiser already has a LoRA of PEFT or diffusers (at {name or 'its top'}), "
                "whose layers stand where the adapter's belong",
                do="call unload_lora_weights() on the pipeline first, or convert and merge that "
                "LoRA: tlora merge",
            )
        if _is_offloaded(module.parameters(recurse=False), module):
            raise UserError(
                f"the weights of {name} are not in memory, as after "
                "enable_sequential_cpu_offload()",
                do="put the adapter on a pipeline without it; enable_model_cpu_offload() will do",
            )


def _runs_fused(attention: Any) -> bool:
    """Say whether an attention that was fused is so still: a UNet's tells by its processor."""
    told = hasattr(attention, "unfuse_projections")
    return told or type(attention.processor).__name__.startswith("Fused")


def _is_offloaded(parameters: Iterable[nn.Parameter], module: nn.Module) -> bool:
    return hasattr(module, "_hf_hook") and any(parameter.is_meta for parameter in parameters)
