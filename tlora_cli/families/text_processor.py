"""Qwen3-VL's processor for texts alone, for pipelines that are given no pictures.

The whole one needs a package for films, which must match torch's build exactly. A pipeline that
draws from a text needs its tokenizer and its chat template, and these are what this one has.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, ProcessorMixin, Qwen3VLProcessor


class TextProcessor(Qwen3VLProcessor):  # type: ignore[misc]
    """Texts -> tokens, as the whole processor makes them.

    Args:
        tokenizer: of the base.
        chat_template: of the base; None: the tokenizer's.
    """

    return_mm_token_type_ids = False  # all of them would say that they are of a text

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None) -> None:
        ProcessorMixin.__init__(self, tokenizer, chat_template=chat_template)

    def __call__(self, text: str | list[str], **options: Any) -> Any:
        """Return tokens in rows, also of a single text, as the whole processor does."""
        return ProcessorMixin.__call__(
            self, text=[text] if isinstance(text, str) else text, **options
        )


def text_processor(model: str, folder: str, revision: str | None = None) -> TextProcessor:
    """Return the processor of a base.

    Args:
        model: a diffusers folder or a Hub id.
        folder: of the processor in it.
        revision: of the Hub's repository.
    """
    tokenizer = AutoTokenizer.from_pretrained(model, subfolder=folder, revision=revision)
    return TextProcessor(tokenizer, chat_template=tokenizer.chat_template)
