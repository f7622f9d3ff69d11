"""AdaLoRA: a LoRA that moves its rank to where it matters (Zhang et al. 2023).

    W' = W + B diag(E) A

A (R, in) and B (out, R) are random, E (R,) is zero at the start. After each step the importance of
every triplet of all layers is measured, and the least important are switched off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlora_cli.formulas.products import Products
from tlora_cli.methods.lora import LORA
from tlora_cli.methods.spec import LowRank, Method, Start, StartSettings, by_family

if TYPE_CHECKING:
    import torch
    from torch import Tensor

START_STD = 0.02
ORTHOGONALITY = 0.5
"""Weight of the orthogonality loss (PEFT's default)."""
SMOOTHING = 0.85
"""beta_1 and beta_2 of sensitivity and uncertainty (eqs. 9 and 10)."""
WARMUP, FINAL = 0.1, 0.3
"""Shares of the run before pruning begins, and after it ended."""
TARGET = 2 / 3
"""Ranks that are left at the end, on average; the published runs start at 1.5 times their goal."""
_TRIPLET = ("A", "E", "B")


def combine(a: Tensor, e: Tensor, b: Tensor) -> Products:
    """Return diag(E) A and B."""
    return Products(e.unsqueeze(-1) * a, b)


def starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield A, B ~ N(0, 0.02^2), E = 0, and the running statistics of all three, zero."""
    import torch

    rank = settings.rank
    for layer in layers:
        down = torch.empty(rank, layer.in_features).normal_(std=START_STD, generator=generator)
        up = torch.empty(layer.out_features, rank).normal_(std=START_STD, generator=generator)
        trained = {"A": down, "E": torch.zeros(rank), "B": up}
        statistics = {
            f"{name}_{kind}": torch.zeros_like(trained[name])
            for name in _TRIPLET
            for kind in ("sensitivity", "uncertainty")
        }
        yield Start(trained, running=statistics)


def observe(layer: Any) -> None:
    """Take a layer's present gradients into its sensitivity and uncertainty (eqs. 8-10)."""
    for name in _TRIPLET:
        weight = getattr(layer, name)
        if weight.grad is None:
            continue
        now = (weight * weight.grad).abs()  # eq. 8
        mean = getattr(layer, f"{name}_sensitivity")
        mean.lerp_(now, 1 - SMOOTHING)  # eq. 9
        getattr(layer, f"{name}_uncertainty").lerp_((now - mean).abs(), 1 - SMOOTHING)  # eq. 10


def importance(layer: Any) -> Tensor:
    """Return each triplet's importance (R,): s(E_i) + mean_j s(A_ij) + mean_j s(B_ji)."""
    a, e, b = (
        getattr(layer, f"{name}_sensitivity") * getattr(layer, f"{name}_uncertainty")  # eq. 11
        for name in _TRIPLET
    )
    combined: Tensor = e + a.mean(1) + b.mean(0)
    return combined


def orthogonality(layers: Sequence[Any]) -> Tensor:
    """Return the mean of ||A A^T - I|| and ||B^T B - I|| over the layers, times its weight."""
    import torch

    total: Tensor = layers[0].A.new_zeros(())
    for layer in layers:
        one = torch.eye(layer.rank, device=layer.A.device)
        total = total + (layer.A @ layer.A.T - one).norm() + (layer.B.T @ layer.B - one).norm()
    return ORTHOGONALITY * total / (2 * len(layers))


@dataclass(frozen=True)
class Budget:
    """The number of triplets that stay, over the run (eq. 12).

    Attributes:
        start: triplets of all layers at the start.
        steps: of the whole run.
    """

    start: int
    steps: int

    def at(self, step: int) -> int:
        """Return the number of triplets that stay after `step` steps."""
        first, last = int(WARMUP * self.steps), self.steps - int(FINAL * self.steps)
        goal = int(TARGET * self.start)
        if step <= first:
            return self.start
        if step >= last:
            return goal
        left = 1 - (step - first) / (last - first)
        return int(goal + (self.start - goal) * left**3)

    def measuring(self, step: int) -> bool:
        """Whether importance is still measured; afterwards the choice stays as it is."""
        return step < self.steps - int(FINAL * self.steps)


def allocate(layers: Sequence[Any], step: int, steps: int) -> int:
    """Measure importance and switch off the least important triplets of all layers.

    Call it after the optimizer's step, while the gradients are still there.

    Args:
        layers: all of the adapter.
        step: steps done, this one included.
        steps: of the whole run.

    Returns:
        The number of triplets that stay.
    """
    import torch

    budget = Budget(sum(layer.rank for layer in layers), steps)
    with torch.no_grad():
        if budget.measuring(step):
            for layer in layers:
                observe(layer)
        keep = budget.at(step)
        if keep < budget.start:
            scores = [importance(layer) for layer in layers]
            threshold = torch.cat(scores).kthvalue(budget.start - keep).values
            for layer, score in zip(layers, scores, strict=True):
                layer.E.masked_fill_(score <= threshold, 0.0)
    return keep


ADALORA = Method(
    name="adalora",
    about="",
    starts=starts,
    update=LowRank(combine, parts=_TRIPLET),
    masked_form=LORA.masked_form,
    penalty=orthogonality,
    after_step=allocate,
    switches=("E",),
    steps=by_family(sdxl=500),  # the paper does not run it: LoRA's
)
