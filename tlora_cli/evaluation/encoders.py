"""Pictures and texts -> features of length one, by well-known encoders.

Each is a Hub id, a local folder, or a bundled model's name.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from tlora_cli.evaluation.encoder_kinds import KINDS
from tlora_cli.families.loading import no_load_bars
from tlora_cli.foundation.bundled import Bundle, is_encoder, model_folder
from tlora_cli.foundation.errors import UserError, known_names
from tlora_cli.foundation.hub import asking, folder_or_id
from tlora_cli.foundation.hub_errors import explained

BATCH = 32


class Encoder(ABC):
    """A model that turns pictures, and perhaps texts, into features.

    Attributes:
        reads_text: whether `texts` can be called.
    """

    reads_text = False
    crop: tuple[int, int] | None = None
    """Shorter side to resize to, and side of the middle square to keep; None: what the checkpoint's
    own preparation does."""

    def __init__(self, model: nn.Module, processor: Any, device: torch.device) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.processor = processor
        self.device = device

    @torch.no_grad()
    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return features (N, D) of length one, fp32, on the CPU."""
        parts = []
        for first in range(0, len(pictures), BATCH):
            batch = [self._cropped(one.convert("RGB")) for one in pictures[first : first + BATCH]]
            pixels = self.processor(images=batch, return_tensors="pt")["pixel_values"]
            parts.append(self._picture_features(pixels.to(self.device)).float().cpu())
        return normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return features (N, D) of length one.

        Longer texts are cut to what the model takes, with a warning.
        """
        self._tell_long(texts)
        parts = []
        for first in range(0, len(texts), BATCH):
            batch = self.processor(
                text=list(texts[first : first + BATCH]),
                padding="max_length",
                truncation=True,
                return_tensors="pt",
            ).to(self.device)
            parts.append(self._text_features(dict(batch)).float().cpu())
        return normalize(torch.cat(parts), dim=-1)

    def _tell_long(self, texts: Sequence[str]) -> None:
        tokenizer = self.processor.tokenizer
        limit = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
        ids = tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
        long = [text for text, tokens in zip(texts, ids, strict=True) if len(tokens) > limit]
        if long:
            warnings.warn(
                f"the encoder that scores reads {limit} tokens of a prompt, and {len(long)} of "
                f"{len(texts)} have more, such as {long[0][:60]!r}: what stands behind is not "
                "scored",
                stacklevel=3,
            )

    def _cropped(self, picture: Image.Image) -> Image.Image:
        if self.crop is None:
            return picture
        shorter, side = self.crop
        scale = shorter / min(picture.size)
        width, height = (round(scale * length) for length in picture.size)
        left, top = (width - side) // 2, (height - side) // 2
        larger = picture.resize((width, height), Image.Resampling.BICUBIC)
        return larger.crop((left, top, left + side, top + side))

    @abstractmethod
    def _picture_features(self, pixels: Tensor) -> Tensor:
        """Return (B, D) of prepared pixels."""

    def _text_features(self, batch: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} reads no text")


class TextImage(Encoder):
    """CLIP and SigLIP: one space for pictures and texts."""

    reads_text = True

    def _picture_features(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        return _pooled(model.get_image_features(pixel_values=pixels))

    def _text_features(self, batch: dict[str, Tensor]) -> Tensor:
        model: Any = self.model
        return _pooled(model.get_text_features(**batch))


class SelfSupervised(Encoder):
    """DINO and DINOv2: the class token after the last norm."""

    def _picture_features(self, pixels: Tensor) -> Tensor:
        states: Tensor = self.model(pixel_values=pixels).last_hidden_state
        return states[:, 0]


def _pooled(answer: Any) -> Tensor:
    pooled: Tensor = answer if isinstance(answer, Tensor) else answer.pooler_output
    return pooled


def load_encoder(
    name: str, checkpoint: str | None, device: torch.device, bundle: Bundle | None = None
) -> Encoder:
    """Load an encoder.

    Args:
        name: of `KINDS`.
        checkpoint: Hub id, folder or bundled model; None for the kind's default.
        device: where it computes.
        bundle: whose world the pictures show, and which has defaults of its own.

    Raises:
        UserError: if the name is unknown or the checkpoint can't be had.
    """
    if name not in KINDS:
        raise UserError(
            f"there is no encoder {name!r}", where="metrics", do=known_names(name, KINDS)
        )
    kind = KINDS[name]
    source = checkpoint or (bundle.encoders.get(name) if bundle else None) or kind.checkpoint
    if is_encoder(source):
        source = str(model_folder(source))
    source = folder_or_id(source, f"the {name} checkpoint")
    import transformers  # its image processing takes seconds, and most runs look at no picture

    load_model = getattr(transformers, kind.model).from_pretrained
    load_processor = getattr(transformers, kind.processor).from_pretrained
    try:
        with asking(source), no_load_bars(Path(source).is_dir()):
            model = load_model(source, dtype=torch.float32, **kind.options)
            processor = load_processor(source)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the {name} checkpoint can't be loaded: {str(error).splitlines()[0]}",
            where=source,
            do="check the name and the network, or name a local folder",
            kind=explained(error, source).kind,
        ) from error
    encoder = (TextImage if kind.reads_text else SelfSupervised)(model, processor, device)
    if source == kind.checkpoint:
        encoder.crop = kind.crop
    return encoder
