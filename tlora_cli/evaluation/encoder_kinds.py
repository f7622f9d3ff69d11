"""The encoders that look at pictures, by name. Nothing is loaded here; `encoders` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """The files that are loaded for an encoder.

    Attributes:
        checkpoint: the default, a Hub id.
        model: name of transformers' class.
        processor: name of transformers' class.
        reads_text: whether it has one space for pictures and texts.
        options: for the model's class.
        crop: what the default checkpoint's authors did to a picture; see `Encoder.crop`.
    """

    checkpoint: str
    model: str
    processor: str
    reads_text: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    crop: tuple[int, int] | None = None


KINDS: dict[str, Kind] = {
    "clip": Kind("openai/clip-vit-base-patch32", "CLIPModel", "AutoProcessor", reads_text=True),
    "dino": Kind(
        "facebook/dino-vits16",
        "ViTModel",
        "AutoImageProcessor",
        options={"add_pooling_layer": False},
        crop=(256, 224),
    ),
    "dinov2": Kind("facebook/dinov2-small", "AutoModel", "AutoImageProcessor"),
    "siglip": Kind("google/siglip-base-patch16-224", "AutoModel", "AutoProcessor", reads_text=True),
}
"""Name -> kind. The T-LoRA paper uses CLIP ViT-B/32 and a DINO it does not name."""
