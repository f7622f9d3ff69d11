"""Facts that the program must know of a model family.

A family is one file that fills in `Family`, and one line in `FAMILIES`. Its facts are read where no
torch may be loaded, as by recipes, so classes are named `module:class` and resolved when they are
needed, and what computes imports torch inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.facts import (
    Argument,
    ComfyUI,
    Conditioning,
    Kohya,
    LatentDistribution,
    License,
    Sampler,
    TextEncoder,
)
from tlora_cli.families.reach import PUBLISHED, target_layers
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.plugins import resolve

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from tlora_cli.formulas.noise_axis import NoiseAxis
    from tlora_cli.formulas.objectives import Objective


class Family(ABC):
    """One kind of model. Instances hold no state; `FAMILIES` has one of each."""

    # --- names --------------------------------------------------------------------------------

    name: ClassVar[str]
    """Name in recipes, on the command line and in adapter files."""
    title: ClassVar[str]
    """Name in prose."""
    denoiser_words: ClassVar[str]
    """Thing that users pass to the Python API, with an article."""

    # --- the parts of its pipeline in diffusers -----------------------------------------------

    denoiser: ClassVar[str]
    """Name of the denoiser in the pipeline; also the prefix of its layers in adapter files."""
    denoiser_class: ClassVar[str]
    pipeline_class: ClassVar[str]
    vae_class: ClassVar[str] = "diffusers:AutoencoderKL"
    text_encoders: ClassVar[tuple[TextEncoder, ...]]
    text_tokens: ClassVar[int]
    """Length of the texts; less if the base's tokenizer takes less."""
    text_tokenizer: ClassVar[str]
    """The tokenizer that may cut texts shorter."""
    single_file_is_whole: ClassVar[bool]
    """Whether a .safetensors file of a model site holds every part, or the denoiser only."""
    single_file_keys: ClassVar[tuple[str, ...]]
    """Part of the names of its weights in such a file."""

    # --- layers -------------------------------------------------------------------------------

    targets: ClassVar[str]
    """Regular expression for the full names of the layers that are adapted by default."""
    named_targets: ClassVar[Mapping[str, str]] = {}
    """The same for the further names of `reach.REACHES`, `linear` and `all`."""
    shared_input: ClassVar[str]
    """Regular expression for full layer names: layers whose groups agree read the same tensor. A
    layer that turns out to be given another one costs time, nothing else."""
    text_keys_values: ClassVar[str | None] = None
    """Regular expression for the keys and values of the text in cross-attention; None without."""
    layer_prefixes: ClassVar[tuple[str, ...]]
    """Beginnings of the names of its layers, in any naming."""
    row_shares: ClassVar[Mapping[str, int]] = {}
    """Last part of a layer's name -> its share of the rows of a layer that the original model has
    for several; 1 unless listed."""
    turned_layers: ClassVar[tuple[str, ...]] = ()
    """The original model's names of layers whose outputs have the halves the other way round."""
    whole_model: ClassVar[tuple[str, str]]
    """Regular expression for a name in a file of the whole denoiser, and what that file is."""

    # --- latents and time ---------------------------------------------------------------------

    vae_factor: ClassVar[int] = 8
    """Pixels for each place of a latent, along a side."""
    latent_patch: ClassVar[int] = 1
    """Latent sides must be multiples of this."""
    timestep_input: ClassVar[Argument]
    latent_input: ClassVar[Argument]
    denoiser_settings: ClassVar[Mapping[str, Any]] = {}
    """Fields of the denoiser's configuration that `predict` counts upon; None: not there."""
    text_widths: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Field of the denoiser's configuration -> `part.field` of text encoders, which add up to
    it."""
    timestep_scale: ClassVar[float | None] = None
    """Scale in the header of an adapter file: the denoiser's timestep times this is t. None where
    `timesteps` is no factor."""
    noise_line: ClassVar[tuple[float, float]] = (2.0, 0.0)
    """s and b by which T (1 - sigmoid(logsnr / s + b)) is t on the standard base's noise schedule;
    of flow matching exactly these."""

    # --- the standard base --------------------------------------------------------------------

    standard_base: ClassVar[str]
    """Hub id of the base that is taken if none is named."""
    standard_title: ClassVar[str]
    """Name in prose."""
    standard_gigabytes: ClassVar[int]
    """Files that have to be downloaded of it."""
    standard_denoiser: ClassVar[Mapping[str, Any]]
    standard_vae: ClassVar[Mapping[str, Any]]
    standard_scheduler: ClassVar[Mapping[str, Any]] = {}
    """Configurations of its parts; fields at diffusers' defaults are left out."""
    standard_text_parameters: ClassVar[int]
    """Parameters of its text encoders."""
    resolutions: ClassVar[tuple[int, ...]]
    """Sides in pixels that it knows from its own training, the largest first."""

    # --- training and sampling ----------------------------------------------------------------

    process: ClassVar[str]
    """Equation that samplers solve, in words."""
    objectives: ClassVar[tuple[str, ...]]
    """Recipe names of what can be trained; `auto` is among them."""
    prediction_types: ClassVar[tuple[str, ...]] = ()
    """Those that diffusers' schedulers are told as their `prediction_type`."""
    samplers: ClassVar[Mapping[str, Sampler]]
    """Name -> sampler; `default` is among them."""
    guidance_doubles: ClassVar[bool]
    """Whether guidance calls the denoiser with and without the prompt (classifier-free)."""
    no_negative_prompt: ClassVar[str] = ""
    """Why it takes no negative prompt; empty if it does."""
    defaults: ClassVar[Mapping[str, Any]]
    """Published settings of a recipe where they differ from the models' own defaults."""
    masked_defaults: ClassVar[Mapping[str, Any]] = {}
    """Further ones of methods whose rank follows a schedule."""
    memory_presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Size of a card -> settings of `train` that fit it, by `memory.plan_memory`."""

    # --- other tools, and the Hub -------------------------------------------------------------

    kohya: ClassVar[Kohya | None] = None
    comfyui: ClassVar[ComfyUI | None] = None
    architecture: ClassVar[str | None] = None
    """`modelspec.architecture` of a LoRA."""
    hub_tags: ClassVar[tuple[str, ...]] = ()
    licenses: ClassVar[Mapping[str, License]] = {}
    """Base on the Hub -> its license, as its own model card says it."""

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """Text encoders, by their names in the pipeline."""
        return tuple(one.name for one in self.text_encoders)

    @property
    def text_parts(self) -> tuple[str, ...]:
        """Pipeline components that turn prompts into embeddings."""
        return (*self.encoder_names, *(one.tokenizer for one in self.text_encoders))

    @property
    def pixel_multiple(self) -> int:
        """Widths and heights in pixels must be multiples of this."""
        return self.vae_factor * self.latent_patch

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

    def image_conditioning(self, crop: int, resolution: int) -> Conditioning:
        """Return what the denoiser is told about the training picture's size, one row."""
        return {}

    @abstractmethod
    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return a conditioning of random numbers, of the widths that the denoiser takes."""

    def latent_channels(self, denoiser: Any) -> int:
        """Return the channels of a latent."""
        channels: int = denoiser.config.in_channels
        return channels

    def encode_image(self, vae: Any, pixels: Tensor) -> LatentDistribution:
        """Return the latent distribution of one picture (3, H, W) in [-1, 1]."""
        from tlora_cli.families.vae import encode_image

        return encode_image(vae, pixels)

    def decode(self, vae: Any, latents: Tensor) -> list[Image.Image]:
        """Return pictures of latents (B, C, h, w) in the denoiser's scale."""
        from tlora_cli.families.vae import decode

        return decode(vae, latents)

    # --- training -----------------------------------------------------------------------------

    def timesteps(self, given: Tensor) -> Tensor:
        """Return t on the 0..T scale of the timesteps that the denoiser is given, in fp64."""
        return given

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
