"""Tokenizers for the captions, and a first lesson for text encoders.

A text encoder first learns to tell the factors from a caption, a minute's work; the denoiser then
finds words that mean something from its first step on. The encoders stay as they are, as in a real
model: training them along took a tenth of the time and is not needed.

The lesson sees no picture, so it draws captions of all combinations: CLIP and T5 have read the
whole web, and know a white bird without having seen one. Encoders that read seen combinations only
misread the class in a quarter of the captions of held-out ones (and toy-sdxl, which got their
embeddings, drew a fish where a white bird was asked for).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from architectures import TEXT_LENGTH
from harness import Plan, Run, device
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer, T5TokenizerFast

from tlora_cli.toyworld.captions import FEATURE_WORDS, MARKING_WORDS, caption, vocabulary
from tlora_cli.toyworld.factors import FACTORS, PRIVATE, draw_factors, draw_private

START, END = "<|startoftext|>", "<|endoftext|>"
TOLD = {**FACTORS, **PRIVATE}
"""All that a caption can tell."""
CLIP_SIZE = 900
"""Upper limit of the CLIP vocabulary; every word of a caption becomes one token well before."""


def clip_tokenizer(pad: str = END) -> CLIPTokenizer:
    """Return CLIP's kind of tokenizer, trained on captions; SDXL's second one pads with '!'."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    empty = CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        pad_token=END,
        model_max_length=TEXT_LENGTH,
    )
    rng = random.Random(0)
    corpus = [caption(_values(rng), rng) for _ in range(20_000)]
    corpus += [word for word in vocabulary() for _ in range(50)]
    trained = empty.train_new_from_iterator(corpus, vocab_size=CLIP_SIZE)
    return CLIPTokenizer(
        vocab=_in_order(trained.get_vocab()),
        merges=_merges(trained),
        pad_token=pad,
        model_max_length=TEXT_LENGTH,
    )


def _in_order(vocab: dict[str, int]) -> dict[str, int]:
    """Number the single letters by the alphabet.

    The trainer numbers them in the order of a hash table, which is another each time, and a run
    that goes on would read other words than it began with.
    """
    letters = sorted(token for token in vocab if len(token.removesuffix("</w>")) == 1)
    numbers = sorted(vocab[letter] for letter in letters)
    return {**vocab, **dict(zip(letters, numbers, strict=True))}


def _values(rng: random.Random) -> dict[str, str]:
    return {**draw_factors(rng), **draw_private(rng)}


def _merges(tokenizer: CLIPTokenizer) -> list[tuple[str, str]]:
    import json

    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return [tuple(pair) for pair in model["merges"]]


def t5_tokenizer() -> T5TokenizerFast:
    """Return T5's kind of tokenizer: the words of the captions, and letters for all others."""
    letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0x100))]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -4.0) for word in vocabulary()]
    pieces += [(letter, -9.0) for letter in ("▁", *letters)]
    pieces += [(f"<extra_id_{number}>", 0.0) for number in reversed(range(100))]
    return T5TokenizerFast(vocab=pieces, model_max_length=TEXT_LENGTH)


def tokenize(
    tokenizer: CLIPTokenizer | T5TokenizerFast, texts: Sequence[str], length: int = TEXT_LENGTH
) -> Tensor:
    """Return token numbers (B, length)."""
    ids: Tensor = tokenizer(
        list(texts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids.to(device())


def said(values: dict[str, str], text: str) -> dict[str, str]:
    """Return the values, with private attributes that the caption keeps to itself as `none`."""
    told = dict(values)
    for name, words in (("marking", MARKING_WORDS), ("feature", FEATURE_WORDS)):
        if not any(word in text for word in words[values[name]]):
            told[name] = "none"
    return told


class Lesson(nn.Module):
    """Text encoders with heads that name the factors, and what is said of private attributes.

    Args:
        encoders: what is trained.
        states: captions -> list of (B, D) summaries of a text, each of which must tell the factors.
        widths: D of each summary.
        lengths: if given, half of the batches are padded to one of these numbers of tokens, which
            `states` then takes, too.
    """

    def __init__(
        self,
        encoders: nn.ModuleList,
        states: Callable[..., list[Tensor]],
        widths: Sequence[int],
        lengths: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.encoders = encoders
        self.states = states
        self.lengths = lengths
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Linear(width, len(known)) for known in TOLD.values())
            for width in widths
        )

    def loss(self, generator: torch.Generator) -> Tensor:
        """Return the cross entropy of the factors that a batch of captions names."""
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        length = TEXT_LENGTH
        if self.lengths and rng.random() < 0.5:
            length = rng.choice(list(self.lengths))
        drawn = [_values(rng) for _ in range(128 * TEXT_LENGTH // length)]
        texts = [caption(values, rng) for values in drawn]
        told = [said(values, text) for values, text in zip(drawn, texts, strict=True)]
        states = self.states(texts, length) if self.lengths else self.states(texts)
        total = torch.zeros((), device=device())
        for state, heads in zip(states, self.heads, strict=True):
            for head, (name, known) in zip(heads, TOLD.items(), strict=True):
                truth = torch.tensor([known.index(values[name]) for values in told])
                total = total + functional.cross_entropy(head(state), truth.to(device()))
        return total / len(states)


def teach(name: str, lesson: Lesson, work: Path, seed: int) -> None:
    """Give the lesson, or take its result from the work folder; the encoders are frozen then."""
    lesson.encoders.train().requires_grad_(True)
    plan = Plan(f"{name}-text", 900, lr=1e-3, average=0.0, every=100, evaluate_every=10**9)
    Run(plan, lesson.to(device()), work, seed).train(lesson.loss)
    lesson.encoders.eval().requires_grad_(False)
