"""Leave out what a file holds beside an adapter: learned words, and zeros."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

_WORDS = re.compile(r"bundle_emb\.(?P<word>[^.]+)\..+|(?:clip_[lg]|t5|t5xxl|emb_params)")
"""OneTrainer's bundled embeddings, and embeddings as they are named in files of their own."""
_DIFFERENCES = re.compile(r".+(?:\.diff|\.diff_b|\.lora_[AB](?:\.\w+)?\.bias)")


def without_additions(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors of the adapter itself.

    Learned words are left out with a warning. Biases and differences that are zero everywhere, as
    some tools write them, change nothing.

    Args:
        tensors: of the file, by name.
        path: of the file, for the warning.
    """
    words = {key: found for key in tensors if (found := _WORDS.fullmatch(key))}
    kept = {
        key: tensor
        for key, tensor in tensors.items()
        if key not in words and not (_DIFFERENCES.fullmatch(key) and not tensor.any())
    }
    if words:
        names = sorted({found["word"] for found in words.values() if found["word"]})
        called = f" ({', '.join(names)})" if names else ""
        warnings.warn(
            f"{path.name} also brings learned words{called}, which are not used: prompts with them "
            "draw something else than in other tools",
            stacklevel=2,
        )
    return kept
