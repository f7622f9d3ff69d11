"""The kinds of things that a model family computes, beside the facts that it states.

A family is one file that fills in `Family`, and one line in `FAMILIES`. Its values (`stated.py`)
are read where no torch may be loaded, so what computes imports torch inside.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

from tlora_cli.families.facts import Conditioning, LatentDistribution
from tlora_cli.families.reach import PUBLISHED, target_layers
from tlora_cli.families.stated import Stated
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.plugins import resolve

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from tlora_cli.formulas.noise_axis import NoiseAxis
    from tlora_cli.formulas.objectives import Objective


class Family(Stated, ABC):
    """One kind of model. Instances hold no state; `FAMILIES` has one of each."""

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """Text encoders, by their names in the pipeline."""
        return tuple(one.name for one in self.text_encoders)

    @property
    def text_parts(self) -> tuple[str, ...]:
        """Pipeline components that turn prompts into embeddings."""
        return (*self.encoder_names, *(one.tokenizer for one in self.text_encoders))

    def encoders_of(self, pipeline: Any) -> list[Any]:
        """Return the text encoders that a pipeline has; a base may lack some of them."""
        held = (getattr(pipeline, name) for name in self.encoder_names)
        return [encoder for encoder in held if encoder is not None]

    @property
    def pixel_multiple(self) -> int:
        """Widths and heights in pixels must be multiples of this."""
        return self.vae_factor * self.latent_patch

    def made_parts(self, model: str, revision: str | None) -> dict[str, Any]:
        """Return the parts of the pipeline that are made otherwise than it would make them.

        Args:
            model: a diffusers folder or a Hub id.
            revision: of the Hub's repository.
        """
        return {}

    # --- text and pictures into tensors -------------------------------------------------------

    @abstractmethod
    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return the text conditioning of the prompts, on the pipeline's device.

        Gradients flow to what is learned in the encoders; callers that learn nothing there turn
        them off.
        """

    def encode_negative(self, pipeline: Any, prompt: str) -> Conditioning | None:
        """Return the conditioning of a negative prompt; None where the pipeline has its own.

        Raises:
            UserError: if the family has no negative prompts.
        """
        if not self.no_negative_prompt:
            return self.encode_prompts(pipeline, [prompt])
        if prompt:
            raise UserError(
                self.no_negative_prompt, where="sampling.negative_prompt", do="leave it empty"
            )
        return None

    def text_room(self, tokenizer: Any, limit: int) -> int:
        """Return how many tokens of a prompt are read, if `limit` are read in all."""
        room: int = limit - tokenizer.num_special_tokens_to_add()
        return room

    def image_conditioning(self, part: tuple[int, int], size: tuple[int, int]) -> Conditioning:
        """Return what the denoiser is told about the training picture's size, one row.

        Args:
            part: width and height of what was taken of the photo, before resizing.
            size: of the training picture.
        """
        return {}

    @abstractmethod
    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return a conditioning of random numbers, of the widths that the denoiser takes."""

    def latent_channels(self, denoiser: Any) -> int:
        """Return the channels of a latent."""
        channels: int = denoiser.config.in_channels
        return channels

    def answer_channels(self, config: Mapping[str, Any]) -> int | None:
        """Return the channels of the denoiser's answer by its configuration; None: as it takes."""
        channels: int | None = config.get("out_channels")
        return channels

    def latent_scale(self, vae: Any, like: Tensor) -> tuple[Any, Any]:
        """Return what is taken from the VAE's latents, and what they are then multiplied with."""
        from tlora_cli.families.vae import latent_scale

        return latent_scale(vae, like)

    def encode_image(self, vae: Any, pixels: Tensor) -> LatentDistribution:
        """Return the latent distribution of one picture (3, H, W) in [-1, 1]."""
        from tlora_cli.families.vae import encode_image

        return encode_image(vae, pixels, self.latent_scale, self.vae_frames)

    def decode(self, vae: Any, latents: Tensor) -> list[Image.Image]:
        """Return pictures of latents (B, C, h, w) in the denoiser's scale."""
        from tlora_cli.families.vae import decode

        return decode(vae, latents, self.latent_scale, self.vae_frames)

    # --- training -----------------------------------------------------------------------------

    def training_notes(self, index: Mapping[str, Any], base: str) -> Iterator[str]:
        """Yield what should be said before a base is trained on.

        Args:
            index: its model_index.json.
            base: its name.
        """
        yield from ()

    def timesteps(self, given: Tensor) -> Tensor:
        """Return t on the 0..T scale of the timesteps that the denoiser is given, in fp64."""
        return given

    def told(self, t: Tensor) -> Tensor:
        """Return what the denoiser is given for t on the 0..T scale; `timesteps` undoes it."""
        return t.float() / (self.timestep_scale or 1.0)

    @abstractmethod
    def objective(self, scheduler_config: Mapping[str, Any], name: str) -> Objective:
        """Return the objective by recipe name; `auto` reads the base model's scheduler."""

    def noise_axis(self, scheduler_config: Mapping[str, Any]) -> NoiseAxis:
        """Return the noise levels of a base model by its scheduler, whatever the base predicts."""
        from tlora_cli.formulas.noise_axis import NoiseAxis

        explicit = self.objective(scheduler_config, self.objectives[-1])
        return NoiseAxis(*self.noise_line, explicit.signal_shares())

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

    def refused_call(self, arguments: Mapping[str, Any]) -> str:
        """Return why a mask of ranks would not hold in a call of the denoiser; empty if it does.

        Args:
            arguments: of the call, by their names.
        """
        return ""

    # --- sampling -----------------------------------------------------------------------------

    def guidance_calls(self, denoiser: Any, guidance: float) -> int:
        """Return how many answers of the denoiser a step of sampling takes."""
        return 2 if self.guidance_doubles and guidance > self.guidance_none else 1

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
        if name in self.prediction_types:
            scheduler.register_to_config(prediction_type=name)

    def sampler(self, name: str, config: Mapping[str, Any]) -> Any:
        """Return the scheduler called `name`, with the base model's noise schedule."""
        if name not in self.samplers:
            raise UserError(
                f"scheduler {name!r} is not known for {self.name}",
                do=f"use one of {', '.join(self.samplers)}",
            )
        sampler = self.samplers[name]
        made = resolve(sampler.scheduler)
        known = signature(made.__init__).parameters
        if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in known:
            raise UserError(
                f"sampler {name} can't draw with this base's noise, which ends in noise alone "
                "(rescale_betas_zero_snr)",
                where="sampling.scheduler",
                do="use default, euler, or another",
            )
        return made.from_config(config, **sampler.options)

    # --- layers -------------------------------------------------------------------------------

    def knows(self, names: Collection[str]) -> bool:
        """Whether one of the names, in any naming, is that of a layer of the family."""
        foreign = self.foreign_layers and re.compile(self.foreign_layers)
        if foreign and any(foreign.search(name) for name in names):
            return False
        return any(name.startswith(self.layer_prefixes) for name in names)

    def original_names(self, layer_names: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the original model's layer names with underscores, and which layers each means.

        Args:
            layer_names: the denoiser's linear layers and convolutions, in diffusers' names.
        """
        yield from ()

    @property
    def reaches(self) -> Mapping[str, str]:
        """Name of `reach.REACHES` -> expression for the full names of the layers that it means."""
        return {PUBLISHED: self.targets, **self.named_targets}

    def target_layers(self, denoiser: nn.Module, targets: str | None = None) -> dict[str, Any]:
        """Return the layers of a name of `REACHES`, or those whose full name matches, in order.

        Args:
            denoiser: of the family.
            targets: a name, or an expression for linear layers; None as `attention`.

        Raises:
            UserError: if the expression is invalid or matches no linear layer, or the family
                doesn't say what the name means.
        """
        return target_layers(f"{self.name} {self.denoiser}", self.reaches, denoiser, targets)
