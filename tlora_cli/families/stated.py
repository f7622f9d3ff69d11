"""Facts that a family states as plain values; what it computes is in `spec`.

They are read where no torch may be loaded, as by recipes, so classes are named `module:class` and
resolved when they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tlora_cli.families.facts import (
    Argument,
    ComfyUI,
    Kohya,
    License,
    Published,
    Sampler,
    TextEncoder,
)


class Stated:
    """The values that a family fills in."""

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
    other_pipelines: ClassVar[tuple[str, ...]] = ()
    """Further classes of pipelines, for bases of the family with other text encoders."""
    vae_class: ClassVar[str] = "diffusers:AutoencoderKL"
    text_encoders: ClassVar[tuple[TextEncoder, ...]]
    zeros_without: ClassVar[tuple[str, ...]] = ()
    """Those that a base may lack; zeros stand for their texts."""
    text_tokens: ClassVar[int]
    """Length of the texts; less if the base's tokenizer takes less."""
    text_tokenizer: ClassVar[str]
    """The tokenizer that may cut texts shorter."""
    single_file_is_whole: ClassVar[bool]
    """Whether a .safetensors file of a model site holds every part, or the denoiser only."""
    single_file_keys: ClassVar[tuple[str, ...]]
    """Part of the names of its weights in such a file."""
    single_file_unread: ClassVar[tuple[str, ...]] = ()
    """Names of tensors that such files have and no pipeline reads."""

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
    foreign_layers: ClassVar[str | None] = None
    """Regular expression for names that begin so, too, and are found in another family alone."""
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
    vae_frames: ClassVar[bool] = False
    """Whether the VAE is one of films: pictures and latents have an axis of frames, here of one."""
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
    standard_text_waiting: ClassVar[int] = 0
    """Parameters of these that wait while the encoders' blocks take turns on a device."""
    other_bases: ClassVar[Mapping[str, Published]] = {}
    """Hub id -> a base of other sizes."""
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
    guidance_none: ClassVar[float] = 1.0
    """Guidance that leaves the answer as it is. With g, the answer c to the prompt and u to the
    negative one the pipeline goes on with u + g (c - u); where it is c + g (c - u), this is 0."""
    guidance_batched: ClassVar[bool] = True
    """Whether both are one batch; else they are two calls, one after the other."""
    no_learned_words: ClassVar[str] = ""
    """Why no word can be learned in its text encoders; empty if one can."""
    no_recorded_step: ClassVar[str] = ""
    """Why a step can't be recorded as a CUDA graph; empty if it can."""
    no_negative_prompt: ClassVar[str] = ""
    """Why it takes no negative prompt; empty if it does."""
    default_method: ClassVar[str] = "tlora"
    """Method of a recipe that names none."""
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
