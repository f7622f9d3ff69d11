"""Records of which a family's description is made: plain values, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Conditioning: TypeAlias = "dict[str, Tensor]"
"""Inputs of the denoiser beside the noisy latent; row b of each tensor belongs to sample b."""

KL_VAE: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 1024,
}
"""The layers of Stable Diffusion's VAE, which others took over: 8 pixels for a place."""


@dataclass(frozen=True)
class LatentDistribution:
    """A picture's posterior under the VAE, in the denoiser's scale; mean and std are (C, h, w)."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise: a fresh latent, as if the picture were encoded again."""
        return self.mean + self.std * noise


class TextEncoder(NamedTuple):
    """A text encoder and its tokenizer, by their names in the pipeline.

    `embedding` is the encoder's name in other programs' files of learned words.
    """

    name: str
    tokenizer: str
    embedding: str = ""


class Argument(NamedTuple):
    """An argument of the denoiser's `forward`."""

    name: str
    position: int

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return its value in a call, of a list of samples the last; None if it isn't given."""
        value = kwargs.get(self.name)
        if self.name not in kwargs and len(args) > self.position:
            value = args[self.position]
        while isinstance(value, list):  # samples, or the pictures that one of them sees
            value = value[-1]
        return value


class Published(NamedTuple):
    """A base on the Hub whose parts have other sizes than those of its family's standard base."""

    denoiser: Mapping[str, Any]
    """Fields of its denoiser's configuration that differ."""
    text_parameters: int
    text_waiting: int = 0
    """Parameters of theirs that wait; see `Stated.standard_text_waiting`."""


class Sampler(NamedTuple):
    """A scheduler of diffusers to sample with."""

    scheduler: str
    """`module:class`."""
    options: Mapping[str, Any] = {}
    """Over the configuration of the base model's own scheduler."""


@dataclass(frozen=True)
class License:
    """A license as the Hub's model cards name it.

    Attributes:
        id: one of the Hub's, such as `openrail++`.
        name, link: of a license that is `other` there.
    """

    id: str
    name: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class Kohya:
    """The form of a family's LoRA in kohya's sd-scripts, in the original model's layer names.

    Attributes:
        network_module: `ss_network_module` in the header.
        base_version: `ss_base_model_version` in the header.
        own_names: whether its names are diffusers' own, each layer by itself.
    """

    network_module: str
    base_version: str
    own_names: bool = False


@dataclass(frozen=True)
class ComfyUI:
    """Facts that a ComfyUI workflow needs of a family.

    Attributes:
        nodes: key -> class and inputs of the nodes that load the model and make the empty latent;
            in the order in which they are added.
        model, clip, vae, latent: where these come from: key of a node, which of its outputs.
        sampling: inputs of KSampler.
        guidance: class and inputs of a node that the positive prompt goes through; None without.
        zero_negative: whether the negative prompt is the positive one with zeros in place of
            numbers, instead of an empty text.
        peft_names: whether ComfyUI is given LoRAs in PEFT's names, or in kohya's.
        start_percent: (t on the 0..1000 scale) -> from which percent (0..1) of the sampling on the
            timestep is at most t.
        note: what to know about the times; may be empty.
    """

    nodes: Mapping[str, tuple[str, Mapping[str, Any]]]
    model: tuple[str, int]
    clip: tuple[str, int]
    vae: tuple[str, int]
    latent: tuple[str, int]
    sampling: Mapping[str, Any]
    start_percent: Callable[[float], float]
    guidance: tuple[str, Mapping[str, Any]] | None = None
    zero_negative: bool = False
    peft_names: bool = False
    note: str = ""
