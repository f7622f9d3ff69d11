"""Cases of the benchmark: a training step and a sampling step of each method, in each mode."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.inputs import denoiser_call, example
from benchmark.published import Published
from tlora_cli import Adapter, attach
from tlora_cli.families import FAMILIES
from tlora_cli.formulas.objectives import Objective, TimestepSampler
from tlora_cli.methods import METHODS
from tlora_cli.recipe.train_sections import OptimizerConfig
from tlora_cli.training.batch import Batch, Example, draw_batch
from tlora_cli.training.execution import make_passes
from tlora_cli.training.optimizers import make_optimizer
from tlora_cli.training.step import Loss

MODES = ("eager", "compile", "cuda_graph")
"""Ways to run a step; the last only on a GPU, and only for the low-rank methods."""
BARE, PUBLISHED = "bare", "published"


@dataclass(frozen=True)
class Setting:
    """The device and the size that are measured.

    Attributes:
        family: of the base.
        base: its name, for the table.
        side: of the latent.
        tokens: of the text.
        rank: R.
        device, dtype: of the denoiser.
        config: folder of the base, if it is not the standard one.
    """

    family: str
    base: str
    side: int
    tokens: int
    rank: int
    device: torch.device
    dtype: torch.dtype
    config: str | None = None


class Workload:
    """A frozen denoiser, and pictures and texts to train it with."""

    def __init__(self, setting: Setting, denoiser: Any) -> None:
        self.setting = setting
        self.denoiser = denoiser.requires_grad_(False)
        family = FAMILIES[setting.family]
        schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        self.objective: Objective = family.objective(schedule, "auto")
        torch.manual_seed(0)
        self.examples: list[Example] = [
            example(setting.family, denoiser, setting.side, setting.tokens)
        ]

    def copy(self) -> Any:
        """Return the denoiser as another module on the same weights."""
        shared = [*self.denoiser.parameters(), *self.denoiser.buffers()]
        return copy.deepcopy(self.denoiser, {id(tensor): tensor for tensor in shared})

    def batch(self, index: int) -> Batch:
        """Return the batch of a training step, the same for the same index."""
        return draw_batch(
            self.examples,
            [],
            size=1,
            seed=0,
            index=index,
            objective=self.objective,
            timesteps=TimestepSampler(),
            device=self.setting.device,
        )

    def loss(self, denoiser: nn.Module, adapter: Adapter | None) -> Loss:
        """Return the loss of a batch."""
        family, penalty = FAMILIES[self.setting.family], adapter.penalty if adapter else None
        return Loss(family, denoiser, self.objective, self.setting.dtype, penalty=penalty)


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        method: a name of `METHODS`, `bare`, `published ...`, or of another implementation.
        mode: of `MODES`.
        step: (index) -> loss, after forward and backward pass and optimizer step.
        sample: (count) -> calls of the denoiser as in sampling: two samples, no gradients.
        trained: how many numbers are trained.
    """

    method: str
    mode: str
    step: Callable[[int], Tensor]
    sample: Callable[[int], object]
    trained: int

    @property
    def name(self) -> str:
        """Method and mode."""
        return f"{self.method} {self.mode}"


def methods() -> list[str]:
    """Return the methods that need no text encoder."""
    return [name for name, method in METHODS.items() if not method.word]


def make_case(workload: Workload, method: str, mode: str, other: Path | None = None) -> Case:
    """Return a case on a denoiser of its own.

    Args:
        workload: what it works on.
        method: a name of `METHODS`, `bare`, `published lora`, `published tlora`, or anything else
            for the implementation in `other`.
        mode: of `MODES`.
        other: file of another implementation, see `docs/performance.md`.
    """
    setting, denoiser = workload.setting, workload.copy()
    adapter: Adapter | None = None
    parameters: list[nn.Parameter] = []
    before: Callable[[Tensor], object] = lambda timesteps: None  # noqa: E731
    groups: list[dict[str, Any]] | None = None
    if method == BARE:
        pass
    elif method.startswith(PUBLISHED):
        written_out = Published(setting.family, denoiser, setting.rank, method.endswith("tlora"))
        parameters, before = written_out.parameters(), written_out.before_call
    elif other is not None:
        built = load_other(other).build(denoiser, family=setting.family, rank=setting.rank)
        parameters = list(built.parameters())
        before = getattr(built, "before_call", before)
    else:
        adapter = attach(denoiser, method, setting.rank, blocks=32)
        parameters, groups = list(adapter.parameters()), adapter.parameter_groups()
    optimizer = None
    if parameters:
        config = OptimizerConfig(name="adamw", lr=1e-4)
        optimizer = make_optimizer(config, groups or [{"params": parameters, "rate": 1.0}])

    loss = workload.loss(denoiser, adapter)

    def as_it_is(batch: Batch) -> Tensor:
        batch.latents.requires_grad_(not parameters)  # nothing is trained: it takes the gradient
        whole, losses = loss(batch)
        whole.backward()
        return loss.mean(losses, batch.instances).detach()

    passes = make_passes(mode, as_it_is, denoiser, adapter, parameters, setting.device)

    def step(index: int) -> Tensor:
        batch = workload.batch(index)
        before(batch.timesteps.to(setting.device))
        mean = passes(batch)
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return mean

    call = denoiser_call(
        setting.family, denoiser, side=setting.side, batch=2, tokens=setting.tokens
    )

    @torch.no_grad()
    def sample(calls: int) -> None:
        with adapter.frozen() if adapter else nullcontext():
            for index in range(calls):
                t = 999.0 * (1 - index / calls)  # another rank in each step, as in sampling
                before(torch.full((2,), t, device=setting.device))
                call(t)

    trained = sum(parameter.numel() for parameter in parameters)
    return Case(method, mode, step, sample, trained)


def load_other(path: Path) -> Any:
    """Return the module of another implementation."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
