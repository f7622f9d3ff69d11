"""A tiny vision-language model, of the true classes of transformers: Idefics3, as SmolVLM is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from tlora_cli.photos.captions.captioner import INSTRUCTION, Captioner

SIDE = 32
"""The model looks at squares of this side, in pixels."""
END = "<end_of_utterance>"
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}:"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    f"{END}\n{{% endfor %}}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]


def write_tiny_vlm(folder: Path, words: Sequence[str] = ()) -> Path:
    """Write a model of random weights with its processor into a folder, and return it.

    Args:
        folder: to write to.
        words: texts whose words get a token of their own.
    """
    tokenizer = _tokenizer([*words, INSTRUCTION])
    # A close-up of each quarter by default, as the published processor makes them.
    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    processor = Idefics3Processor(pictures, tokenizer, image_seq_len=4, chat_template=TEMPLATE)
    numbers = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id,
               "eos_token_id": tokenizer.convert_tokens_to_ids(END),
               "bos_token_id": tokenizer.convert_tokens_to_ids("<|im_start|>")}  # fmt: skip
    text = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 16,            "max_position_embeddings": 512, **numbers}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8}  # fmt: skip
    config = Idefics3Config(
        text_config=text, vision_config=vision, scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = numbers["eos_token_id"]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def teach(folder: Path, lessons: Sequence[tuple[Image.Image, str]], word: str, steps: int) -> float:
    """Teach the model in a folder to say a text of each picture, and return its last loss."""
    captioner = Captioner(str(folder), torch.device("cpu"))
    model = captioner.model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batches = []
    for picture, text in lessons:
        inputs = captioner.inputs(picture, word)
        answer = captioner.processor.tokenizer(text + END, return_tensors="pt")["input_ids"]
        whole = torch.cat([inputs["input_ids"], answer], 1)
        labels = whole.clone()
        labels[:, : inputs["input_ids"].shape[1]] = -100
        batches.append({**inputs, "input_ids": whole, "labels": labels,
                        "attention_mask": torch.ones_like(whole)})  # fmt: skip
    loss = torch.tensor(torch.inf)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum((model(**one).loss for one in batches), torch.zeros(()))
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return loss.item()


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes and of the words of some texts, made as GPT-2's is."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|endoftext|>", "<fake_token_around_image>", "<image>",
               "<global-img>", END, *TILES]  # fmt: skip
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bare.train_from_iterator(list(texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<|im_start|>", eos_token=END, pad_token="<|endoftext|>"
    )
