"""The place in a picture of what a word names, by CLIPSeg (Lueddecke and Ecker 2022)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.hub import asking, folder_or_id
from tlora_cli.foundation.hub_errors import explained
from tlora_cli.photos.loading import no_bars

if TYPE_CHECKING:
    import torch

CHECKPOINT = "CIDAS/clipseg-rd64-refined"
"""The authors' finer checkpoint, under the Apache license 2.0; about 600 MB."""
THRESHOLD = 0.4
"""Least probability of the subject; CLIPSeg's maps seldom reach 1 inside thin parts."""


class Segmenter:
    """Finds what a word names.

    Args:
        checkpoint: Hub id or folder of a CLIPSeg model.
        device: where it computes.
        otherwise: what to do without a model, for the message.

    Raises:
        UserError: if the checkpoint can't be had.
    """

    def __init__(self, checkpoint: str, device: torch.device, otherwise: str) -> None:
        import torch

        # Its image processing takes seconds, and who only paints over a mask does not need it.
        from transformers import AutoProcessor, CLIPSegForImageSegmentation

        checkpoint = folder_or_id(checkpoint, "the masking checkpoint")
        try:
            with asking(checkpoint), no_bars(Path(checkpoint).is_dir()):
                model: Any = CLIPSegForImageSegmentation.from_pretrained(
                    checkpoint, dtype=torch.float32
                )
                self.processor = AutoProcessor.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the masking checkpoint can't be loaded: {str(error).splitlines()[0]}",
                where=checkpoint,
                do=f"check the name and the network, name a local folder, or {otherwise}",
                kind=explained(error, checkpoint).kind,
            ) from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = device

    def probabilities(self, picture: Image.Image, word: str) -> torch.Tensor:
        """Return the subject's probability, (H, W) of the picture, in [0, 1]."""
        import torch

        inputs = self.processor(
            text=[word], images=[picture.convert("RGB")], padding=True, return_tensors="pt"
        ).to(self.device)
        with torch.no_grad():
            logits = self.model(**inputs).logits.reshape(1, 1, *self.model_size(inputs))
        size = picture.height, picture.width
        larger = torch.nn.functional.interpolate(logits, size, mode="bilinear", antialias=True)
        return torch.sigmoid(larger)[0, 0].cpu()

    @staticmethod
    def model_size(inputs: Any) -> tuple[int, int]:
        """Return height and width of the map: that of the prepared picture."""
        height, width = inputs["pixel_values"].shape[-2:]
        return int(height), int(width)
