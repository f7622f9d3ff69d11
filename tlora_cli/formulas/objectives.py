"""Training objectives: how a clean latent is corrupted, and what the model should answer.

All formulas are elementwise in the latent, so they hold for any layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


def _broadcast(values: Tensor, like: Tensor) -> Tensor:
    """Shape (B,) values so that they multiply a (B, ...) tensor sample by sample."""
    return values.to(like).view(-1, *[1] * (like.dim() - 1))


class Objective(ABC):
    """A target of training. x is the clean latent, n the noise, t the timesteps (B,)."""

    first_timestep: int = 0
    """Least timestep that training draws: 0 for diffusion, 1 for flow matching."""

    @abstractmethod
    def signal_shares(self) -> list[float]:
        """Return the signal's share of the variance at t = 0, 1, ...: sigmoid(logsnr)."""

    @abstractmethod
    def corrupt(self, x: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """Return the noisy latent at t."""

    @abstractmethod
    def target(self, x: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """Return what the model should predict."""


class Diffusion(Objective):
    """Shared part of the variance-preserving objectives (DDPM, Ho et al. 2020).

    Args:
        alphas_cumprod: (T,) products of the base model's noise schedule.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self._alphas = {alphas_cumprod.device: alphas_cumprod}

    def alphas_cumprod(self, device: torch.device) -> Tensor:
        """Return (T,) on a device; copied there once only."""
        if device not in self._alphas:
            self._alphas[device] = next(iter(self._alphas.values())).to(device)
        return self._alphas[device]

    def signal_shares(self) -> list[float]:
        """Return alpha_bar_t: logsnr is log(alpha_bar / (1 - alpha_bar))."""
        shares: list[float] = next(iter(self._alphas.values())).tolist()
        return shares

    def signal_and_noise(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), shaped for `like`."""
        alpha_bar = self.alphas_cumprod(t.device)[t.long()]
        return _broadcast(alpha_bar.sqrt(), like), _broadcast((1 - alpha_bar).sqrt(), like)

    def corrupt(self, x: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """Return x_t = sqrt(alpha_bar) x + sqrt(1 - alpha_bar) n (DDPM, eq. 4)."""
        signal, noise = self.signal_and_noise(t, x)
        return signal * x + noise * n


class Epsilon(Diffusion):
    """Predict the noise (DDPM, eq. 14)."""

    def target(self, x: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """Return n."""
        return n


class VPrediction(Diffusion):
    """Predict the velocity (Salimans and Ho 2022, appendix D)."""

    def target(self, x: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """Return v = sqrt(alpha_bar) n - sqrt(1 - alpha_bar) x."""
        signal, noise = self.signal_and_noise(t, x)
        return signal * n - noise * x


class Flow(Objective):
    """Rectified flow (Liu et al. 2022; FLUX.1): straight lines from data to noise.

    Args:
        num_train_timesteps: T; s = t / T.
    """

    first_timestep = 1

    def __init__(self, num_train_timesteps: int = 1000) -> None:
        self.num_train_timesteps = num_train_timesteps

    def signal_shares(self) -> list[float]:
        """Return (1 - s)^2 / ((1 - s)^2 + s^2): logsnr is 2 log((1 - s) / s)."""
        levels = [t / self.num_train_timesteps for t in range(self.num_train_timesteps + 1)]
        return [(1 - s) ** 2 / ((1 - s) ** 2 + s**2) for s in levels]

    def corrupt(self, x: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """Return x_s = (1 - s) x + s n."""
        s = _broadcast(t.float() / self.num_train_timesteps, x)
        return (1 - s) * x + s * n

    def target(self, x: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """Return dx_s / ds = n - x."""
        return n - x


@dataclass(frozen=True)
class TimestepSampler:
    """The timesteps that are drawn: whole numbers in [low, high), shifted by one for flow matching.

    Args:
        low, high: the interval on the 0..T scale.
        distribution: `uniform`, or `logit_normal` (Esser et al. 2024, eq. 19) over the interval.
        mean, std: of the logit.
    """

    low: int = 0
    high: int = 1000
    distribution: str = "uniform"
    mean: float = 0.0
    std: float = 1.0

    def draw(self, count: int, objective: Objective, generator: torch.Generator) -> Tensor:
        """Return `count` timesteps (int64, CPU) from the generator."""
        if self.distribution == "uniform":
            drawn = torch.randint(self.low, self.high, (count,), generator=generator)
        else:
            normal = torch.randn(count, generator=generator, dtype=torch.float64)
            share = torch.sigmoid(self.mean + self.std * normal)
            drawn = (self.low + share * (self.high - self.low)).long().clamp(max=self.high - 1)
        return drawn + objective.first_timestep


def squared_error(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean squared error of each sample.

    Args:
        prediction: (B, C, h, w), compared in fp32.
        target: likewise.
        weight: (B, 1, h, w), how much each place counts; None counts all alike. The mean is over
            the weight, so the size of the subject does not change the scale of the loss.

    Returns:
        (B,) losses.
    """
    error = (prediction.float() - target.float()) ** 2
    if weight is None:
        return error.flatten(1).mean(1)
    weight = weight.expand_as(error).flatten(1)
    return (error.flatten(1) * weight).sum(1) / weight.sum(1)
