"""Paint a picture's background over, so that image similarity looks at the subject alone.

The paper masks the background and doesn't say how. Here CLIPSeg finds the subject by its class
name (Lueddecke and Ecker 2022), so training and drawn pictures are masked the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tlora_cli.families.loading import no_load_bars
from tlora_cli.foundation.errors import UserError

CHECKPOINT = "CIDAS/clipseg-rd64-refined"
GRAY = (127, 127, 127)
"""The color that the background becomes: near zero after the encoders' normalization."""
THRESHOLD = 0.4
"""Least probability of the subject; CLIPSeg's maps seldom reach 1 inside thin parts."""


class Segmenter:
    """Finds what a word names.

    Args:
        checkpoint: Hub id or folder of a CLIPSeg model.
        device: where it computes.

    Raises:
        UserError: if the checkpoint can't be had.
    """

    def __init__(self, checkpoint: str, device: torch.device) -> None:
        # Its image processing takes seconds, and who only paints over a mask does not need it.
        from transformers import AutoProcessor, CLIPSegForImageSegmentation

        try:
            with no_load_bars(Path(checkpoint).is_dir()):
                model: Any = CLIPSegForImageSegmentation.from_pretrained(
                    checkpoint, dtype=torch.float32
                )
                self.processor = AutoProcessor.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the masking checkpoint can't be loaded: {str(error).splitlines()[0]}",
                where=checkpoint,
                do="check the name and the network, name a local folder, or pass --mask none",
            ) from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = device

    @torch.no_grad()
    def probabilities(self, picture: Image.Image, word: str) -> torch.Tensor:
        """Return the subject's probability, (H, W) of the picture, in [0, 1]."""
        inputs = self.processor(
            text=[word], images=[picture.convert("RGB")], padding=True, return_tensors="pt"
        ).to(self.device)
        logits = self.model(**inputs).logits.reshape(1, 1, *self.model_size(inputs))
        size = picture.height, picture.width
        larger = torch.nn.functional.interpolate(logits, size, mode="bilinear", antialias=True)
        return torch.sigmoid(larger)[0, 0].cpu()

    @staticmethod
    def model_size(inputs: Any) -> tuple[int, int]:
        """Return height and width of the map: that of the prepared picture."""
        height, width = inputs["pixel_values"].shape[-2:]
        return int(height), int(width)

    def masked(self, picture: Image.Image, word: str) -> Image.Image:
        """Return the picture with its background gray; whole, if nothing is found in it."""
        found = self.probabilities(picture, word) >= THRESHOLD
        return paint_over(picture, found) if found.any() else picture


def paint_over(picture: Image.Image, subject: torch.Tensor) -> Image.Image:
    """Return the picture, gray wherever `subject` (H, W) is False."""
    mask = Image.fromarray((subject * 255).byte().numpy(), "L")
    return Image.composite(picture.convert("RGB"), Image.new("RGB", picture.size, GRAY), mask)
