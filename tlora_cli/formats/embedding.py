"""The learned word alone, as a file of embeddings that other programs know.

One tensor (n, D) a text encoder, under the names that ComfyUI, A1111 and diffusers' users have for
them: `clip_l`, `clip_g`, `t5xxl`. In ComfyUI it goes into `models/embeddings` and is written
`embedding:NAME`; in diffusers each tensor goes into `load_textual_inversion`.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from tlora_cli.families import FAMILIES
from tlora_cli.formats.spec import Format, Sizes
from tlora_cli.formats.weights import AdapterWeights
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically


def write(path: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the file and return how it is used.

    Args:
        path: the .safetensors file.
        weights: with a learned word.
        sizes: not needed.

    Raises:
        UserError: if no word was learned.
    """
    if not weights.words:
        raise UserError(
            "the adapter has learned no word, so there is no embedding to write",
            do="train with train.word_lr, or choose another --to",
        )
    names = {one.name: one.embedding for one in FAMILIES[weights.family or ""].text_encoders}
    tensors = {
        names[encoder]: parts["vectors"].detach().to("cpu", torch.float32).contiguous()
        for encoder, parts in weights.words.items()
    }
    write_atomically(path, lambda file: save_file(tensors, file, metadata={"format": "pt"}))
    word, class_name = weights.info.placeholder, weights.info.class_name
    written = _in_a_prompt(path.stem)
    named = "" if written == path.stem else f" as {written}{path.suffix}, a name for prompts,"
    about = [
        f"in ComfyUI put it into models/embeddings{named} and write embedding:{written} in place "
        f"of {word or 'the word'}, as in 'a photo of embedding:{written} {class_name or 'dog'}'"
    ]
    if weights.layers or weights.parts:
        about.append("what the adapter changes in the denoiser is not in it; convert that, too")
    return about


def _in_a_prompt(name: str) -> str:
    """Return the name as it can stand in ComfyUI's prompts, which end it at a space.

    Parentheses and colons weigh words there, and a comma ends one.
    """
    return re.sub(r"[\s(),:\\]+", "-", name).strip("-") or "word"


EMBEDDING = Format("embedding", None, write, low_rank_only=False, words=True)
