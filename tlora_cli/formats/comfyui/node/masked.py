"""The update of masked low-rank factors, added to the layers' answers while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .adapter_file import Pair
from .ranks import Schedule


@dataclass(frozen=True)
class Place:
    """A layer of the model that factors belong to.

    Attributes:
        module: its name within the model.
        rows: first output and number of outputs that the factors change; None: all of them.
        turn: puts a weight's outputs into the model's order, where the adapter has another.
    """

    module: str
    rows: tuple[int, int] | None = None
    turn: Callable[[Tensor], Tensor] | None = None

    def turned(self, up: Tensor) -> Tensor:
        """Return the factor of the outputs (out, width) in the model's order."""
        return up if self.turn is None else self.turn(up)


@dataclass
class MaskedUpdate:
    """An adapter on a model: y = W x + strength * up (mask(t) * (down x)).

    Attributes:
        layers: where each pair of factors belongs.
        copies: blocks of R components in each factor.
        schedule: ranks by timestep.
        timestep_scale: what the model's own timestep is multiplied with to get t in [0, 1000].
        strength: of the update.
    """

    layers: Sequence[tuple[Place, Pair]]
    copies: int
    schedule: Schedule
    timestep_scale: float
    strength: float
    _moved: dict[tuple[torch.device, torch.dtype], list[Pair]] = field(default_factory=dict)

    def __call__(self, executor: Any, *args: Any, **more: Any) -> Any:
        """Run the model once, under the mask of its timesteps: a wrapper of ComfyUI's APPLY_MODEL.

        Its DIFFUSION_MODEL would be nearer, but Stable Diffusion 3's class never asks for those.
        """
        model = executor.class_obj.diffusion_model
        with ExitStack() as hooks:

            def begin(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                x, timesteps, *_ = inputs
                self.attach(module, x, timesteps, hooks)

            hooks.callback(model.register_forward_pre_hook(begin).remove)
            return executor(*args, **more)

    def attach(self, model: nn.Module, x: Tensor, timesteps: Tensor, hooks: ExitStack) -> None:
        """Add the update to the layers until `hooks` is closed.

        Args:
            model: has the layers by name.
            x: input of the model; tells device and number format.
            timesteps: (B,), the model's own.
            hooks: undoes it.
        """
        ranks = self.schedule.ranks(timesteps.detach().cpu().double() * self.timestep_scale)
        on = torch.arange(self.schedule.rank) < ranks[:, None]
        mask = self.strength * on.repeat(1, self.copies).to(x.device, x.dtype)
        for (place, _), pair in zip(self.layers, self._factors(x), strict=True):
            hook = _adding(pair, mask, place.rows)
            module = model.get_submodule(place.module)
            hooks.callback(module.register_forward_hook(hook).remove)

    def _factors(self, like: Tensor) -> list[Pair]:
        """Return the factors on a device and in a number format; they are moved there once."""
        key = (like.device, like.dtype)
        if key not in self._moved:
            self._moved.clear()
            self._moved[key] = [
                (down.to(like.device, like.dtype), place.turned(up).to(like.device, like.dtype))
                for place, (down, up) in self.layers
            ]
        return self._moved[key]


def _adding(
    pair: Pair, mask: Tensor, rows: tuple[int, int] | None
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a forward hook that adds the masked update to a layer's answer."""
    down, up = pair

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        x = inputs[0].to(down.dtype)
        if down.dim() == 2:
            hidden = functional.linear(x, down)
            between = (1,) * (hidden.dim() - 2)
            hidden = hidden * _rows_for(mask, len(hidden)).view(len(hidden), *between, -1)
            update = functional.linear(hidden, up)
        else:
            conv: Any = module
            hidden = functional.conv2d(x, down, None, conv.stride, conv.padding, conv.dilation)
            hidden = hidden * _rows_for(mask, len(hidden))[:, :, None, None]
            update = functional.conv2d(hidden, up)
        if rows is None:
            return answer + update.to(answer.dtype)
        changed = answer.clone()
        changed.narrow(-1, *rows).add_(update.to(answer.dtype))
        return changed

    return hook


def _rows_for(mask: Tensor, batch: int) -> Tensor:
    """Return the mask of each sample; a model may run a layer on a single row for all of them."""
    if len(mask) == batch:
        return mask
    if batch % len(mask) == 0:
        return mask.repeat_interleave(batch // len(mask), dim=0)
    if bool((mask == mask[0]).all()):
        return mask[:1].expand(batch, -1)
    raise RuntimeError(f"{batch} rows can't be told apart by {len(mask)} timesteps")


def places(key_map: Mapping[str, Any], names: Sequence[str]) -> dict[str, Place]:
    """Return where the layers of an adapter are in ComfyUI's model.

    Args:
        key_map: of `comfy.lora.model_lora_keys_unet`: a LoRA's name -> weight, or weight and
            (dimension, first, count) or None, and what turns its outputs.
        names: with underscores for dots.

    Raises:
        KeyError: for a layer that the model lacks; its argument is the name.
    """
    found = {}
    for name in names:
        known = (f"{start}_{name}" for start in ("lora_unet", "lycoris", "lora_transformer"))
        target = next((key_map[key] for key in known if key in key_map), None)
        if target is None:
            raise KeyError(name)
        weight, part, turn, *_ = (*(target if isinstance(target, tuple) else (target,)), None, None)
        module = weight.removeprefix("diffusion_model.").removesuffix(".weight")
        found[name] = Place(module, None if part is None else (part[1], part[2]), turn)
    return found
