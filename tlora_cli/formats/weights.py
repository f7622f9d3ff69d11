"""The contents of an adapter file, whatever its format."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.prompts import concept_words

Pair = tuple[Tensor, Tensor]
"""down (copies * R, in) and up (out, copies * R) of one layer; of a convolution, as in other tools'
files, down (copies * R, in, k, k) and up (out, copies * R, 1, 1)."""


@dataclass(frozen=True)
class AdapterFile:
    """An opened file as a reader is given it.

    Attributes:
        path: where the file lies, for what stands beside it and for messages.
        header: text fields of a safetensors header; empty for other files.
        tensors: all of them, floating point and finite.
        layer_names: the denoiser's linear layers and convolutions; some formats can't be read
            without them. Where the model is loaded, a mapping to the layers themselves.
    """

    path: Path
    header: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    layer_names: Collection[str]

    def weight_of(self, name: str) -> Tensor | None:
        """Return a layer's weights (out, in); None if the model's weights are not loaded."""
        if not isinstance(self.layer_names, Mapping):
            return None
        weight: Tensor = self.layer_names[name].weight
        return None if weight.is_meta else weight


@dataclass(frozen=True)
class AdapterInfo:
    """The origin of an adapter; every field may be unknown."""

    method: str | None = None
    init: str | None = None
    seed: int | None = None
    base_model: str | None = None
    base_revision: str | None = None
    base_variant: str | None = None
    base_config: str | None = None
    base_version: str | None = None
    """`foundation.bundled.version_of` a base that comes with a package."""
    placeholder: str | None = None
    class_name: str | None = None
    train_steps: int | None = None
    precision: str | None = None
    quantization: str | None = None
    objective: str | None = None
    attention: str | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    """Settings of the recipe's `sampling` section, with width and height filled in."""
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def concept(self) -> str:
        """The words that V* stands for, e.g. "sks dog"; empty if the file doesn't say."""
        return concept_words(self.placeholder, self.class_name)


@dataclass(frozen=True)
class AdapterWeights:
    """The contents of an adapter file.

    Attributes:
        layers: layer name within the denoiser -> its pair of factors, scale folded in.
        copies: how many blocks of R rows each `down` has.
        schedule: None if the file should have one but doesn't say it, or if there are no ranks.
        parts: of methods without ranks, whose changes are no pairs: name of a layer -> name ->
            tensor. `layers` is empty then.
        words: name of a text encoder -> name -> tensor of the learned word.
        blocks: number of diagonal blocks, of OFT and GSOFT.
        family: name of the model family, or None if the file doesn't say.
    """

    layers: dict[str, Pair]
    copies: int
    schedule: RankSchedule | None
    family: str | None
    info: AdapterInfo
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    words: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    blocks: int | None = None

    @property
    def low_rank(self) -> bool:
        """Whether it has pairs of factors, a LoRA to other tools, perhaps with a word beside it."""
        return bool(self.layers) or self.schedule is not None

    @property
    def rank(self) -> int:
        """Full rank R; the largest where layers differ."""
        return max(down.shape[0] for down, _ in self.layers.values()) // self.copies
