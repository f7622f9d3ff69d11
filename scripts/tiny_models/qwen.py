"""Tiny language models of Qwen's kind, with their tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3VLConfig

from tiny_models.clip_and_t5 import END

QWEN_LENGTH = 512
QWEN_MERGES = (("t", "h"), ("i", "n"), ("in", "g"), ("a", "n"), ("e", "r"))
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Its prompt stands where that of Qwen3 does; there is no empty thought behind it."""
QWEN_TEMPLATE_OF_PARTS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)
"""The same of Qwen3-VL, whose messages have parts."""
MARKS_OF_SIGHT = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_WORDS = (
    *("system", "user", "assistant", "Describe", "the", "image", "by", "detailing", "color"),
    *("shape", "size", "texture", "quantity", "text", "spatial", "relationships", "of"),
    *("objects", "and", "background"),
)
"""Words around a prompt of Qwen-Image, each a token of its own there and here: the pipeline leaves
out as many tokens as Qwen's own tokenizer makes of them, 34."""


def qwen_tokenizer(
    words: Sequence[str] = (), marks: Sequence[str] = (), template: str = QWEN_TEMPLATE
) -> Qwen2Tokenizer:
    """Make a byte-level BPE tokenizer with Qwen's marks of a conversation.

    Args:
        words: that are tokens of their own; all but the first four behind a space.
        marks: further ones.
        template: of a conversation.
    """
    merges = list(QWEN_MERGES)
    for place, word in enumerate(words):
        pieces = [*word] if place < 4 else ["Ġ", *word]
        for left, right in QWEN_MERGES:  # those come first, wherever they are
            for at in reversed(range(len(pieces) - 1)):
                if pieces[at : at + 2] == [left, right]:
                    pieces[at : at + 2] = [left + right]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = [pieces[0] + pieces[1]]
    merges = list(dict.fromkeys(merges))
    symbols = [*sorted(ByteLevel.alphabet()), *dict.fromkeys("".join(pair) for pair in merges)]
    tokens = [*symbols, END, "<|im_start|>", "<|im_end|>", *marks]
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        eos_token="<|im_end|>",
        pad_token=END,
        additional_special_tokens=["<|im_start|>", "<|im_end|>", *marks],
        model_max_length=QWEN_LENGTH,
        chat_template=template,
    )


def qwen_config(tokenizer: Qwen2Tokenizer, layers: int) -> Qwen3Config:
    """Return the settings of a language model for a tokenizer."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        max_position_embeddings=QWEN_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def qwen3_vl_config(tokenizer: Qwen2Tokenizer, layers: int) -> Qwen3VLConfig:
    """Return the settings of a language model that sees, for a tokenizer."""
    text = qwen_config(tokenizer, layers).to_dict()
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    }
    text["max_position_embeddings"] = 2 * QWEN_LENGTH
    sight = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    return Qwen3VLConfig(text_config=text, vision_config=sight, **marks_of_sight(tokenizer))


def marks_of_sight(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    """Return the tokens that stand for pictures, which no prompt has, by their settings."""
    numbers = tokenizer.get_vocab()
    names = ("image_token_id", "video_token_id", "vision_start_token_id")
    return {
        **dict.fromkeys(names, numbers["<|im_start|>"]),
        "vision_end_token_id": numbers["<|im_end|>"],
    }
