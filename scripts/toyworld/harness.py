"""One training loop for all models of the built-in world: seeded, resumable, logged.

Batches and noise are functions of (seed, step), and a checkpoint holds weights, averages, optimizer
and step; so a stopped run goes on as the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from muon import Muon
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tlora_cli.foundation.files import write_atomically

DECAY_SHARE = 0.25
"""The learning rate is constant, then falls to zero over the last quarter of the steps."""


@dataclass(frozen=True)
class Plan:
    """Settings of how long and how fast to train.

    Attributes:
        name: of the model; its checkpoint and log are named so.
        steps: optimizer steps.
        lr: highest learning rate, after `warmup` steps.
        warmup: steps of linear rise.
        weight_decay: AdamW's.
        average: decay of the running mean of the weights, which is what is kept; 0 for none.
        slow: decay of a second, longer mean beside it, to choose from in the end; 0 for none.
        minutes: stop after so many minutes of training, over all starts; steps are the end anyway.
        every: steps between two lines of the log.
        save_every: steps between two checkpoints.
        evaluate_every: steps between two evaluations.
        betas: AdamW's.
        bf16: multiply in bfloat16.
        orthogonal: part of the name of modules whose matrices Muon updates (Jordan et al. 2024);
            transformers learn in fewer steps with it. None: AdamW for all.
        orthogonal_lr: Muon's learning rate in terms of `lr`, at AdamW's update size.
        orthogonal_every: steps between two updates of Muon.
    """

    name: str
    steps: int
    lr: float
    warmup: int = 100
    weight_decay: float = 0.01
    average: float = 0.999
    slow: float = 0.0
    minutes: float = float("inf")
    every: int = 50
    save_every: int = 500
    evaluate_every: int = 1000
    betas: tuple[float, float] = (0.9, 0.99)
    bf16: bool = False
    orthogonal: str | None = None
    orthogonal_lr: float = 1.0
    orthogonal_every: int = 1


def arguments(
    description: str | None,
    steps: int,
    more: Callable[[argparse.ArgumentParser], None] | None = None,
) -> argparse.Namespace:
    """Read the command line that all training scripts share, and what `more` adds to it."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--steps", type=int, default=steps, help=f"default {steps}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: all cores")
    parser.add_argument("--compile", action="store_true", help="torch.compile the denoiser")
    if more is not None:
        more(parser)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def is_done(work: Path, name: str, steps: int) -> bool:
    """Say whether a run in the work folder has its steps, and so needs nothing any more."""
    checkpoint = work / f"{name}.pt"
    if not checkpoint.exists():
        return False
    step: int = torch.load(checkpoint, map_location="cpu", weights_only=True)["step"]
    return step >= steps


def device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Run:
    """A model in training.

    Args:
        plan: how long and how fast.
        model: everything that is trained.
        work: folder of the checkpoint `<name>.pt` and the log `<name>.jsonl`.
        seed: of batches and noise.
    """

    def __init__(self, plan: Plan, model: nn.Module, work: Path, seed: int) -> None:
        self.plan = plan
        self.model = model
        self.seed = seed
        self.step = 0
        self.checkpoint = work / f"{plan.name}.pt"
        self.log_file = work / f"{plan.name}.jsonl"
        self.parameters = [part for part in model.parameters() if part.requires_grad]
        self.averages = [part.detach().clone() for part in self.parameters]
        self.slow = [part.detach().clone() for part in self.parameters] if plan.slow else []
        self.seconds = 0.0
        matrices = {
            part
            for name, part in model.named_parameters()
            if plan.orthogonal and plan.orthogonal in name and part.ndim == 2 and part.requires_grad
        }
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [part for part in self.parameters if part not in matrices],
                lr=plan.lr,
                betas=plan.betas,
                weight_decay=plan.weight_decay,
                fused=True,
            )
        ]
        if matrices:
            self.optimizers.append(
                Muon(
                    [part for part in self.parameters if part in matrices],
                    lr=plan.lr,
                    weight_decay=plan.weight_decay,
                    every=plan.orthogonal_every,
                )
            )
        if self.checkpoint.exists():
            self._load()

    def train(
        self,
        loss: Callable[[torch.Generator], Tensor],
        evaluate: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        """Train to the end of the plan.

        Args:
            loss: makes a batch with the generator and returns its loss.
            evaluate: scores of the averaged weights, for the log.
        """
        plan = self.plan
        total, count, start = 0.0, 0, time.monotonic()
        where = device().type
        clock = time.monotonic()
        while self.step < plan.steps and self.seconds < 60 * plan.minutes:
            for optimizer in self.optimizers:
                factor = plan.orthogonal_lr if isinstance(optimizer, Muon) else 1.0
                for group in optimizer.param_groups:
                    group["lr"] = factor * self._rate()
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            with torch.autocast(where, torch.bfloat16, enabled=plan.bf16), _attention(where):
                value = loss(generator)
            value.backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.step += 1
            self._update_averages()
            self.seconds, clock = self.seconds + time.monotonic() - clock, time.monotonic()
            total, count = total + value.item(), count + 1
            if self.step % plan.every == 0:
                pace = count / (time.monotonic() - start)
                hours = round(self.seconds / 3600, 3)
                row = {"loss": round(total / count, 5), "steps_per_second": round(pace, 2)}
                self.log({**row, "hours": hours})
                total, count, start = 0.0, 0, time.monotonic()
            done = self.step == plan.steps or self.seconds >= 60 * plan.minutes
            if self.step % plan.save_every == 0 or done:
                self._save()
            if evaluate is not None and (self.step % plan.evaluate_every == 0 or done):
                with self.averaged():
                    self.log(evaluate())
                start = clock = time.monotonic()

    def log(self, values: dict[str, float]) -> None:
        """Print values and append them to the log file."""
        line = json.dumps({"step": self.step, **values})
        print(self.plan.name, line, flush=True)
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextmanager
    def averaged(self, slow: bool = False) -> Iterator[None]:
        """Put the averaged weights into the model for a while, in evaluation mode.

        Args:
            slow: those of the longer mean.
        """
        averages = self.slow if slow else self.averages
        if not self.plan.average:
            averages = [part.detach().clone() for part in self.parameters]
        current = [part.detach().clone() for part in self.parameters]
        training = self.model.training
        _copy(averages, self.parameters)
        self.model.eval()
        try:
            yield
        finally:
            _copy(current, self.parameters)
            self.model.train(training)

    def _rate(self) -> float:
        plan = self.plan
        rise = min(1.0, (self.step + 1) / plan.warmup)
        fall = min(1.0, (plan.steps - self.step) / max(1, DECAY_SHARE * plan.steps))
        return plan.lr * rise * fall

    @torch.no_grad()
    def _update_averages(self) -> None:
        # Young averages follow fast, or they would remember the random start.
        decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        if self.slow:
            decay = min(self.plan.slow, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.slow, self.parameters, 1 - decay)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "averages": self.averages,
            "slow": self.slow,
            "seconds": self.seconds,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        write_atomically(self.checkpoint, lambda part: torch.save(state, part))

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=device(), weights_only=True)
        self.model.load_state_dict(state["model"])
        # A state that was committed to go on from is one mean of the weights, and nothing else.
        averages = state.get("averages") or [part.detach().clone() for part in self.parameters]
        self.averages = averages
        self.slow = state.get("slow") or [one.clone() for one in self.averages if self.plan.slow]
        self.seconds = state.get("seconds", 0.0)
        for optimizer, saved in zip(self.optimizers, state.get("optimizers", ()), strict=False):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
        print(f"{self.plan.name}: going on from step {self.step}", flush=True)


def _attention(where: str) -> AbstractContextManager[None]:
    """Write attention out on a CPU: the backward pass of its fused form takes twice as long."""
    return nullcontext() if where == "cuda" else sdpa_kernel(SDPBackend.MATH)


@torch.no_grad()
def _copy(source: list[Tensor], target: list[nn.Parameter]) -> None:
    for one, two in zip(source, target, strict=True):
        two.copy_(one)
