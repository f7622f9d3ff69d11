"""Tiny text encoders of CLIP's and T5's kind, with their tokenizers."""

from __future__ import annotations

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

CLIP_LENGTH = 77
T5_LENGTH = 512
CLIP_MERGES = (("t", "h"), ("th", "e</w>"), ("i", "n"), ("in", "g</w>"), ("a", "n"))
T5_PIECES = ("▁a", "▁the", "▁of", "▁in", "▁on", "▁with", "▁photo", "the", "ing", "er", "an", "in")
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_config(activation: str, width: int = 32) -> CLIPTextConfig:
    """Return the settings of a text encoder for `clip_tokenizer`.

    SDXL's two must differ in width: diffusers tells them apart by it in a single file.
    """
    vocabulary = _clip_vocabulary()
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        hidden_act=activation,
        initializer_factor=1.0,
        bos_token_id=vocabulary[START],
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[END],
    )


def _clip_vocabulary() -> dict[str, int]:
    """Return CLIP's kind of vocabulary: bytes, bytes that end a word, merges, special tokens."""
    symbols = sorted(ByteLevel.alphabet())
    merged = ["".join(pair) for pair in CLIP_MERGES]
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *merged, START, END]
    return {token: number for number, token in enumerate(tokens)}


def clip_tokenizer(pad: str) -> CLIPTokenizer:
    """Make a byte-level BPE tokenizer; SDXL's first pads with END, the second with '!'."""
    return CLIPTokenizer(
        vocab=_clip_vocabulary(),
        merges=list(CLIP_MERGES),
        pad_token=pad,
        model_max_length=CLIP_LENGTH,
    )


def make_t5_tokenizer() -> T5TokenizerFast:
    """Make a Unigram tokenizer of a few pieces and every Latin-1 character."""
    letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0x100))]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -4.0) for piece in T5_PIECES]
    vocabulary += [(letter, -6.0) for letter in ("▁", *letters)]
    vocabulary += [(f"<extra_id_{number}>", 0.0) for number in reversed(range(100))]
    return T5TokenizerFast(vocab=vocabulary, model_max_length=T5_LENGTH)


def t5_encoder(tokenizer: T5TokenizerFast, width: int) -> T5EncoderModel:
    """Make T5's encoder for a tokenizer."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )
