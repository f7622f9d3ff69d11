"""Prodigy (Mishchenko and Defazio 2023, algorithm 4) for all tensors at once, on the device.

The step size d is estimated from the gradients. It is kept as a tensor where the parameters are, so
no step waits for the device. As in the published FLUX recipe: weight decay beside the gradient,
bias correction, and the learning rate left out of the estimate's denominator ("safeguard warmup").
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

D0 = 1e-6
"""First estimate."""


class Prodigy(torch.optim.Optimizer):
    """AdamW with an estimated step size; leave `lr` at 1.

    Args:
        params: tensors, or groups of them.
        lr: what the estimate is multiplied with; the same in all groups, or 0.
        betas: of the running means of gradient and squared gradient.
        eps: added to the root of the squared gradients, times the estimate.
        weight_decay: share of a parameter that is taken off at each step, times its step size.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "d": D0,
                "d0": D0,
                "d_numerator": 0.0,
                "k": 0,
            },
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the parameters that have a gradient."""
        assert closure is None, "no closure is used here"
        groups = [one for one in map(self._lists, self.param_groups) if one.tensors]
        if not groups:
            return
        first, device = self.param_groups[0], groups[0].tensors[0].device
        d, numerator = _number(first["d"], device), _number(first["d_numerator"], device)
        beta1, beta2 = first["betas"]
        decay, k, scaled = math.sqrt(beta2), first["k"], d / first["d0"]
        rates = {one.lr for one in groups} - {0.0}
        if len(rates) > 1:
            raise ValueError(f"Prodigy estimates one step size; it can't have the rates {rates}")
        lr = max(rates, default=0.0)
        step = lr * math.sqrt(1 - beta2 ** (k + 1)) / (1 - beta1 ** (k + 1)) * d

        slopes: list[Tensor] = []
        norms: list[Tensor] = []
        for one in groups:
            if one.lr == 0.0:
                continue
            gradients = torch._foreach_mul(one.gradients, d.to(one.dtype))
            torch._foreach_mul_(one.means, beta1)
            torch._foreach_add_(one.means, gradients, alpha=1 - beta1)
            torch._foreach_mul_(one.squares, beta2)
            torch._foreach_addcmul_(one.squares, gradients, gradients, 1 - beta2)
            # Running sums of d^2 g and of d^2 <g, p0 - p>, both over d0, to stay clear of zero.
            torch._foreach_mul_(gradients, scaled.to(one.dtype))
            torch._foreach_mul_(one.sums, decay)
            torch._foreach_add_(one.sums, gradients)
            ways = torch._foreach_sub(one.starts, one.tensors)
            slopes += [
                torch.dot(gradient.flatten(), way.flatten())
                for gradient, way in zip(one.gradients, ways, strict=True)
            ]
            norms += torch._foreach_norm(one.sums, 1)
        if not norms:
            return
        numerator = decay * numerator + scaled * step * torch.stack(slopes).double().sum()
        denominator = torch.stack(norms).double().sum()
        # Before the first gradient there is nothing to estimate from, and nothing moves.
        known = denominator > 0
        estimate = torch.where(known, numerator / denominator, 0.0)
        d, step = torch.maximum(d, estimate), torch.where(known, step, 0.0)

        for one in groups:
            # step * mean / (root + eps d), with both parts of the fraction divided by d: to a list
            # a tensor's number can be multiplied without reading it, but not added.
            roots = torch._foreach_sqrt(one.squares)
            torch._foreach_mul_(roots, (1 / d).to(one.dtype))
            torch._foreach_add_(roots, one.eps)
            changes = torch._foreach_div(one.means, roots)
            torch._foreach_mul_(changes, (step / d).to(one.dtype))
            torch._foreach_mul_(one.tensors, (1 - one.weight_decay * step).to(one.dtype))
            torch._foreach_sub_(one.tensors, changes)
        for group in self.param_groups:
            group.update(d=d, d_numerator=numerator, k=k + 1)

    def _lists(self, group: dict[str, Any]) -> _Lists:
        tensors = [tensor for tensor in group["params"] if tensor.grad is not None]
        for tensor in tensors:
            state = self.state[tensor]
            if not state:
                state["exp_avg"] = torch.zeros_like(tensor)
                state["exp_avg_sq"] = torch.zeros_like(tensor)
                state["s"] = torch.zeros_like(tensor)
                state["p0"] = tensor.detach().clone()

        def of(name: str) -> list[Tensor]:
            # prodigyopt's checkpoints hold s and p0 flat, and p0 as a single 0 if it is all zeros.
            found = (self.state[tensor][name] for tensor in tensors)
            return [
                one.expand(tensor.shape) if one.dim() == 0 else one.view(tensor.shape)
                for one, tensor in zip(found, tensors, strict=True)
            ]

        return _Lists(
            tensors,
            [tensor.grad for tensor in tensors],
            of("exp_avg"),
            of("exp_avg_sq"),
            of("s"),
            of("p0"),
            group["lr"],
            group["eps"],
            group["weight_decay"],
        )


@dataclass(frozen=True)
class _Lists:
    """A group's tensors, those that have gradients, and what is kept for each."""

    tensors: list[Tensor]
    gradients: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    sums: list[Tensor]
    starts: list[Tensor]
    lr: float
    eps: float
    weight_decay: float

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the tensors."""
        return self.tensors[0].dtype


def _number(value: Tensor | float, device: torch.device) -> Tensor:
    """Return a number as a float64 tensor on the device, without waiting for it."""
    if isinstance(value, Tensor):
        return value.to(device, torch.float64)
    return torch.full((), value, dtype=torch.float64, device=device)
