"""One training step: the whole way from drawing a batch to the update of the adapter.

draw a batch -> corrupt its latents -> predict under the mask of its timesteps -> loss
-> backward -> clip -> optimizer -> what the method does after a step
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tlora_cli.families import Conditioning, Family
from tlora_cli.formulas.objectives import Objective, squared_error
from tlora_cli.foundation.devices import to_device
from tlora_cli.injection.adapter import Adapter
from tlora_cli.training.batch import Batch
from tlora_cli.training.phases import Phase

Passes = Callable[[Batch], Tensor]
"""The forward and backward pass of a batch -> its samples' losses, (B,), without the penalty; the
gradients are with the parameters."""


# --- the loss -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, with all that it depends on but the batch.

    Attributes:
        family: knows how its denoiser is called.
        denoiser: with or without an adapter on it.
        objective: corrupts latents, and says what is predicted.
        dtype: of the denoiser's input.
        guidance: value given to a guidance-distilled model.
        prior_weight: of class pictures, if a batch has some.
        penalty: what the method adds to the loss, if it adds something; None without an adapter.
        preserve_weight: of the class's answers, if they are held to the base's own.
        without: turns the adapter off for a while.
    """

    family: Family
    denoiser: nn.Module
    objective: Objective
    dtype: torch.dtype
    guidance: float = 1.0
    prior_weight: float = 0.0
    penalty: Callable[[], Tensor | None] | None = None
    preserve_weight: float = 0.0
    without: Callable[[], AbstractContextManager[None]] = nullcontext

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what is minimized, a scalar, and the losses of the batch's samples, (B,).

        The scalar is the mean over the concept, plus the weighted mean over the class pictures,
        plus the method's penalty.
        """
        losses = sample_losses(self, batch)
        loss = self.mean(losses, batch.instances)
        penalty = self.penalty() if self.penalty else None
        return (loss if penalty is None else loss + penalty), losses

    def mean(self, losses: Tensor, instances: int) -> Tensor:
        """Return the mean over the concept plus the weighted mean over the class, a scalar.

        Args:
            losses: (B,), of which the first `instances` are the concept's.
            instances: how many.
        """
        mean = losses[:instances].mean()
        if instances < len(losses):
            mean = mean + self.prior_weight * losses[instances:].mean()
        return mean


def preservation(loss: Loss, batch: Batch) -> Tensor:
    """Return what holds the class to the base's own answers, a scalar.

    It is the squared error between the denoiser's answers to the class prompt with and without the
    adapter, on the noisy latents of the batch's concept samples.
    """
    text = batch.class_conditioning
    assert text is not None
    own = slice(0, batch.instances)
    t = to_device(batch.timesteps, batch.latents.device)[own]
    noisy = loss.objective.corrupt(batch.latents[own], batch.noise[own], t).to(loss.dtype)

    predict = functools.partial(loss.family.predict, loss.denoiser, noisy, t, text, loss.guidance)
    with torch.no_grad(), loss.without():
        goal = predict()
    return loss.preserve_weight * squared_error(predict(), goal).mean()


def phrase_difference(
    loss: Loss, phrased: Conditioning, plain: Conditioning, noisy: Tensor, t: Tensor
) -> Tensor:
    """Return what the base makes of phrases, (B, C, h, w).

    It is the difference between the base's answers with and without them.

    Args:
        loss: has the denoiser, and turns the adapter off.
        phrased: class prompts with phrases.
        plain: the same without.
        noisy: latents, (B, C, h, w).
        t: their timesteps, (B,).
    """
    predict = functools.partial(loss.family.predict, loss.denoiser, noisy, t)
    with torch.no_grad(), loss.without():
        return (predict(phrased, loss.guidance) - predict(plain, loss.guidance)).float()


def sample_losses(loss: Loss, batch: Batch) -> Tensor:
    """Return the squared error of each sample of a batch, (B,).

    The last call of the denoiser is under the mask of the batch's timesteps, which stays in force
    until the next one and so through the backward pass.
    """
    t = to_device(batch.timesteps, batch.latents.device)
    noisy = loss.objective.corrupt(batch.latents, batch.noise, t).to(loss.dtype)
    target = loss.objective.target(batch.latents, batch.noise, t)
    phrased, plain = batch.phrase_conditioning, batch.class_conditioning
    if phrased is not None and plain is not None:
        count = batch.instances
        gained = phrase_difference(loss, phrased, plain, noisy[:count], t[:count])
        target = torch.cat([target[:count] + gained, target[count:]])
    prediction = loss.family.predict(loss.denoiser, noisy, t, batch.conditioning, loss.guidance)
    return squared_error(prediction, target, batch.weight)


def forward_backward(loss: Loss, backward: Callable[[Tensor], None]) -> Passes:
    """Return what runs the forward and backward pass of a batch, operation by operation.

    Args:
        loss: of a batch.
        backward: runs the backward pass of a scalar, scaled as the accumulation and fp16 ask for.
    """

    def passes(batch: Batch) -> Tensor:
        whole, losses = loss(batch)
        backward(whole)  # the mask still holds
        if loss.preserve_weight:
            held = preservation(loss, batch)
            if held.requires_grad:  # the word alone doesn't move the class
                backward(held)
        return losses.detach()

    return passes


# --- the step -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepResult:
    """The results of a step; on the device, unless said otherwise.

    Attributes:
        loss: mean over the step's forward passes, a scalar, without the penalty.
        timesteps: of all samples, (N,); on the CPU.
        concept_timesteps: of the concept's samples, (M,); on the CPU.
        concept_losses: of these, (M,).
        lr: learning rate.
        d: Prodigy's estimate of the step size, else None.
    """

    loss: Tensor
    timesteps: Tensor
    concept_timesteps: Tensor
    concept_losses: Tensor
    lr: float
    d: Tensor | float | None


class _Done(NamedTuple):
    """The part of a forward and backward pass that is kept."""

    timesteps: Tensor
    instances: int
    losses: Tensor


@dataclass
class TrainingStep:
    """One optimizer step of a run.

    Attributes:
        draw: number of a forward pass, counted over the whole run -> its batch.
        passes: the forward and backward pass.
        mean: samples' losses and the number of the concept's -> the batch's loss; `Loss.mean`.
        adapter: what is trained.
        optimizer: of its parameters; each group has a `rate`, which the learning rate is
            multiplied with.
        learning_rate: number of a step in its phase, steps of the phase -> learning rate.
        phase: step (0-based) -> the part of the run that it lies in.
        clip: scales gradients of the parameters down to a length.
        max_grad_norm: that length; None: they stay.
        accumulation: forward passes of a step.
    """

    draw: Callable[[int], Batch]
    passes: Passes
    mean: Callable[[Tensor, int], Tensor]
    adapter: Adapter
    optimizer: Any
    learning_rate: Callable[[int, int], float]
    phase: Callable[[int], Phase]
    clip: Callable[[list[nn.Parameter], float], object]
    max_grad_norm: float | None
    accumulation: int

    def __call__(self, step: int) -> StepResult:
        """Run step number `step` (0-based), a function of it and of the state alone."""
        phase = self.phase(step)
        self.adapter.learn(word=phase.word, weights=phase.weights)
        lr = self.learning_rate(phase.step, phase.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        first = step * self.accumulation
        done: list[_Done] = []
        for number in range(first, first + self.accumulation):
            batch = self.draw(number)
            done.append(_Done(batch.timesteps, batch.instances, self.passes(batch)))
        if self.max_grad_norm is not None:
            self.clip(list(self.adapter.parameters()), self.max_grad_norm)
        self.optimizer.step()
        if phase.weights:
            self.adapter.after_step(phase.step + 1, phase.steps)
        self.optimizer.zero_grad(set_to_none=True)
        return self._result(done)

    def _result(self, done: list[_Done]) -> StepResult:
        total = torch.zeros((), device=done[0].losses.device)
        for one in done:
            total += self.mean(one.losses, one.instances) / self.accumulation
        group = next(
            group
            for group in self.optimizer.param_groups
            if any(one.requires_grad for one in group["params"])
        )
        return StepResult(
            loss=total,
            timesteps=torch.cat([one.timesteps for one in done]),
            concept_timesteps=torch.cat([one.timesteps[: one.instances] for one in done]),
            concept_losses=torch.cat([one.losses[: one.instances] for one in done]),
            lr=group["lr"],
            d=group.get("d"),
        )
