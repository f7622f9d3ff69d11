"""A vision-language model of transformers: a photo and an instruction -> what it says.

SmolVLM (Marafioti et al. 2025, arXiv 2504.05299) by default; any model does whose class is
`AutoModelForImageTextToText` without code from the Hub, and which has a chat template.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.hub import asking, folder_or_id
from tlora_cli.foundation.hub_errors import explained
from tlora_cli.photos.captions import CHECKPOINT
from tlora_cli.photos.loading import no_bars

if TYPE_CHECKING:
    import torch

MOST_TOKENS = 64
"""A caption is shorter; SDXL's text encoders read 77 tokens."""
SIDE = 1024
"""Longest side, in pixels, at which a photo is shown to the model."""
INSTRUCTION = (
    "Write one short caption for this photo, of at most 25 words. Call its subject only "
    '"the {class}". Say where the {class} is, its pose, from where it is seen, the light, and '
    "what is beside it or worn by it. Do not say what the {class} itself looks like: not its "
    "color, breed, size or age."
)


class Captioner:
    """Says what surrounds the subject of a photo.

    Args:
        checkpoint: Hub id or folder of a model that follows instructions about a picture.
        device: where it computes, in fp32.

    Raises:
        UserError: if the checkpoint can't be had, or takes no instructions.
    """

    def __init__(self, checkpoint: str, device: torch.device) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        checkpoint = folder_or_id(checkpoint, "the captioning model")
        here = Path(checkpoint).is_dir()
        try:
            with asking(checkpoint), no_bars(here):
                self.processor: Any = AutoProcessor.from_pretrained(
                    checkpoint, trust_remote_code=False
                )
                model: Any = AutoModelForImageTextToText.from_pretrained(
                    checkpoint, dtype=torch.float32, trust_remote_code=False
                )
        except Exception as error:  # a stranger's files make transformers raise anything
            reason = next((line for line in str(error).splitlines() if line.strip()), "")
            remedy = "name the folder of a whole one by --model, or a Hub id"
            if not here:
                remedy = f"check the name and the network; `hf download {checkpoint}` fetches it, "
                remedy += "or name the folder of one by --model"
            raise UserError(
                f"the captioning model can't be loaded: {reason[:300] or type(error).__name__}",
                where=checkpoint,
                do=remedy,
                kind=explained(error, checkpoint).kind,
            ) from error
        if not getattr(self.processor, "chat_template", None):
            raise UserError(
                "the captioning model takes no instructions: it has no chat template",
                where=checkpoint,
                do=f"name one that does by --model, e.g. {CHECKPOINT}",
            )
        # Close-ups of the photo's parts, made for small print, cost up to 17 times as much; place
        # and pose are seen on the whole of it.
        pictures: Any = getattr(self.processor, "image_processor", None)
        if getattr(pictures, "do_image_splitting", False):
            pictures.do_image_splitting = False
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = device

    def says(self, picture: Image.Image, class_name: str) -> str:
        """Return what the model says of a photo (`shown`); the likeliest word each time."""
        import torch

        inputs = self.inputs(picture, class_name)
        with torch.no_grad():
            answer = self.model.generate(
                **inputs, do_sample=False, num_beams=1, max_new_tokens=MOST_TOKENS
            )
        new = answer[0, inputs["input_ids"].shape[1] :]
        said: str = self.processor.decode(new, skip_special_tokens=True)
        return _whole(said) if len(new) >= MOST_TOKENS else said

    def inputs(self, picture: Image.Image, class_name: str) -> Any:
        """Return what the model is called with: photo and instruction, by its own template."""
        text = INSTRUCTION.replace("{class}", class_name)
        content = [{"type": "image", "image": picture}, {"type": "text", "text": text}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.device)


def shown(photo: Image.Image) -> Image.Image:
    """Return a photo (RGB) as large as the model is shown it; a large one is made smaller."""
    small = photo.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return small


def _whole(said: str) -> str:
    """Return a text that broke off, up to its last sign."""
    found = re.match(r".*[.,;]", said, re.DOTALL)
    return found[0] if found else said
