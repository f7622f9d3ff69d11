"""What the rest of the program needs to know of a model family."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from tlora_cli.formulas.objectives import Objective
from tlora_cli.foundation.errors import UserError

Conditioning = dict[str, Tensor]
"""What the denoiser is told beside the noisy latent; row b of each tensor belongs to sample b."""


@dataclass(frozen=True)
class LatentDistribution:
    """A picture's posterior under the VAE, in the denoiser's scale; mean and std are (C, h, w)."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise: a fresh latent, as if the picture were encoded again."""
        return self.mean + self.std * noise


DECODED_PIXELS = 1024 * 1024
"""Most pixels that are decoded at once."""


class Family(ABC):
    """One kind of model. Instances hold no state; `FAMILIES` has one of each."""

    name: ClassVar[str]
    denoiser: ClassVar[str]
    """Name of the denoiser in the pipeline; also the prefix of its layers in adapter files."""
    denoiser_class: ClassVar[type[nn.Module]]
    pipeline_class: ClassVar[type[DiffusionPipeline]]
    text_parts: ClassVar[tuple[str, ...]]
    """Pipeline components that turn prompts into embeddings."""
    targets: ClassVar[str]
    """Regular expression for the full names of the layers that are adapted by default."""
    shared_input: ClassVar[str]
    """Regular expression for full layer names: layers whose groups agree read the same tensor. A
    layer that turns out to be given another one costs time, nothing else."""
    text_keys_values: ClassVar[str | None]
    """Regular expression for the keys and values of the text in cross-attention; None without."""
    timestep_scale: ClassVar[float]
    """Timestep that the denoiser is given, times this, lies on the 0..T scale."""
    timestep_position: ClassVar[int]
    """Place of the timestep among the denoiser's positional arguments."""
    samplers: ClassVar[dict[str, tuple[type[Any], dict[str, Any]]]]
    """Name -> scheduler class and options; `default` is among them."""
    single_file_is_whole: ClassVar[bool]
    """Whether a .safetensors file of a model site holds every part, or the denoiser only."""
    latent_patch: ClassVar[int]
    """Latent sides must be multiples of this."""
    masked_defaults: ClassVar[Mapping[str, Any]] = {}
    """Published settings of a recipe for methods whose rank follows a schedule."""

    # --- text and pictures into tensors -------------------------------------------------------

    @abstractmethod
    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return the text conditioning of the prompts, on the pipeline's device.

        Gradients flow to what is learned in the encoders; callers that learn nothing there turn
        them off.
        """

    @abstractmethod
    def encode_negative(self, pipeline: Any, prompt: str) -> Conditioning | None:
        """Return the conditioning of a negative prompt; None where the pipeline has its own.

        Raises:
            UserError: if the family has no negative prompts.
        """

    @abstractmethod
    def image_conditioning(self, crop: int, resolution: int) -> Conditioning:
        """Return what the denoiser is told about the training picture's size, one row."""

    @torch.no_grad()
    def encode_image(self, vae: Any, pixels: Tensor) -> LatentDistribution:
        """Return the latent distribution of one picture (3, H, W) in [-1, 1]."""
        moments = vae.encode(pixels.unsqueeze(0).to(vae.device, vae.dtype)).latent_dist
        shift = vae.config.shift_factor or 0.0
        scale = vae.config.scaling_factor
        return LatentDistribution(
            ((moments.mean - shift) * scale)[0].float(), (moments.std * scale)[0].float()
        )

    @torch.no_grad()
    def decode(self, vae: Any, latents: Tensor) -> list[Image.Image]:
        """Return pictures of latents (B, C, h, w) in the denoiser's scale.

        As many at once as take no more memory than one of 1024 x 1024 pixels: in fp32 at that size
        the VAE is what needs most.
        """
        shift = vae.config.shift_factor or 0.0
        unscaled = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor + shift
        height, width = latents.shape[-2:]
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        at_once = max(1, DECODED_PIXELS // (height * width * factor**2))
        pictures = []
        for some in unscaled.split(at_once):
            pixels = vae.decode(some, return_dict=False)[0].float()
            levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte()
            pictures += [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in levels.cpu()]
        return pictures

    # --- training -----------------------------------------------------------------------------

    @abstractmethod
    def objective(self, scheduler_config: dict[str, Any], name: str) -> Objective:
        """Return the objective by recipe name; `auto` reads the base model's scheduler."""

    @abstractmethod
    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Return the denoiser's answer (B, C, h, w) for noisy latents at timesteps t (0..T)."""

    # --- sampling -----------------------------------------------------------------------------

    @abstractmethod
    def sample(
        self,
        pipeline: Any,
        positive: Conditioning,
        negative: Conditioning | None,
        *,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        generators: list[torch.Generator],
    ) -> Tensor:
        """Run the stock pipeline and return latents (B, C, h, w) in the denoiser's scale."""

    def set_objective(self, scheduler: Any, name: str) -> None:
        """Let a scheduler know what a model trained with an explicit objective predicts."""
        if name in ("epsilon", "v_prediction"):
            scheduler.register_to_config(prediction_type=name)

    def sampler(self, name: str, config: dict[str, Any]) -> Any:
        """Return the scheduler called `name`, with the base model's noise schedule."""
        if name not in self.samplers:
            raise UserError(
                f"scheduler {name!r} is not known for {self.name}",
                do=f"use one of {', '.join(self.samplers)}",
            )
        scheduler_class, options = self.samplers[name]
        return scheduler_class.from_config(config, **options)

    # --- layers -------------------------------------------------------------------------------

    def target_layers(
        self, denoiser: nn.Module, targets: str | None = None
    ) -> dict[str, nn.Linear]:
        """Return the linear layers whose full name matches, in the model's order.

        Raises:
            UserError: if the expression is invalid or matches no linear layer.
        """
        try:
            pattern = re.compile(targets or self.targets)
        except re.error as error:
            raise UserError(
                f"adapter.targets is not a regular expression: {error}", where=repr(targets)
            ) from error
        layers = {
            name: module
            for name, module in denoiser.named_modules()
            if isinstance(module, nn.Linear) and pattern.fullmatch(name)
        }
        if not layers:
            example = next(
                (name for name, m in denoiser.named_modules() if isinstance(m, nn.Linear)), "none"
            )
            raise UserError(
                f"no linear layer of the {self.name} {self.denoiser} matches adapter.targets",
                where=repr(pattern.pattern),
                do=f"the expression must match a whole layer name, such as {example}",
            )
        return layers
