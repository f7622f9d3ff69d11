"""Learned words on the text encoders of a pipeline."""

from __future__ import annotations

from typing import Any

from torch import nn

from tlora_cli.families import FAMILIES
from tlora_cli.families.wrapping import unwrapped
from tlora_cli.foundation.errors import UserError
from tlora_cli.injection.changes import LearnedWord

ENCODERS = {
    encoder.name: encoder.tokenizer
    for family in FAMILIES.values()
    if not family.no_learned_words
    for encoder in family.text_encoders
}
"""Text encoder -> its tokenizer, by their names in the pipelines of families that learn words."""


def embeddings_of(pipeline: Any) -> dict[str, nn.Module]:
    """Return the token embeddings of a pipeline's text encoders; none if it has no encoders."""
    found = {name: getattr(pipeline, name, None) for name in ENCODERS}
    return {name: _embedding(one) for name, one in found.items() if one is not None}


def _embedding(encoder: Any) -> nn.Module:
    from transformers import T5EncoderModel

    encoder = unwrapped(encoder)
    # T5's own answer is a module that shares the weights but isn't the one that runs.
    running = encoder.encoder if isinstance(encoder, T5EncoderModel) else encoder
    module: nn.Module = running.get_input_embeddings()
    return module


def new_words(
    pipeline: Any, word: str | None, class_name: str | None, rate: float = 1.0
) -> dict[str, LearnedWord]:
    """Return vectors for a word in every text encoder, starting at the class's mean embedding.

    Args:
        pipeline: with the text encoders.
        word: the placeholder.
        class_name: of the concept.
        rate: learning rate, relative to the recipe's.

    Raises:
        UserError: if there is no word, no class, or no text encoder.
    """
    if not word or not class_name:
        raise UserError(
            "a learned word needs a placeholder and a class to start from",
            where="concept",
            do="give info=AdapterInfo(placeholder=..., class_name=...)",
        )
    modules = embeddings_of(pipeline)
    if not modules:
        raise UserError(
            "a word is to be learned, and the pipeline has no text encoders",
            do="attach to a whole pipeline",
        )
    made = {}
    for name, module in modules.items():
        table = module.get_parameter("weight")
        tokenizer = getattr(pipeline, ENCODERS[name])
        start = table[_tokens(tokenizer, class_name)].mean(0)
        made[name] = LearnedWord(_tokens(tokenizer, word), start, rate).to(table.device)
    return made


def _tokens(tokenizer: Any, word: str) -> list[int]:
    """Return the token numbers of a word within a text."""
    ids: list[int] = tokenizer(word, add_special_tokens=False).input_ids
    return ids
