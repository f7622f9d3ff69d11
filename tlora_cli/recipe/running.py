"""Settings under which a training step can't be run in the way that a recipe asks for."""

from __future__ import annotations

from collections.abc import Iterator

from tlora_cli.methods import METHODS
from tlora_cli.recipe.adapter_sections import AdapterConfig
from tlora_cli.recipe.strict_section import Problem
from tlora_cli.recipe.train_sections import TrainConfig


def execution_problems(
    execution: str, train: TrainConfig, adapter: AdapterConfig
) -> Iterator[Problem]:
    """Yield settings under which a step can't be run in this way."""
    if execution not in ("compile", "cuda_graph"):
        return
    key = "train.execution"
    if not METHODS[adapter.method].low_rank:
        yield Problem(
            f"{execution} is for the low-rank methods, and {adapter.method} is none; use eager",
            (key, "adapter.method"),
        )
    if train.word_lr is not None:
        yield Problem(
            f"{execution} and a learned word don't go together: texts are encoded anew; use eager",
            (key, "train.word_lr"),
        )
    if train.quantization:
        yield Problem(
            f"{execution} and a quantized base don't go together; use eager",
            (key, "train.quantization"),
        )
    if execution == "compile":
        return
    if train.accumulation > 1:
        yield Problem(
            "a CUDA graph can't accumulate gradients; use eager or compile, or a larger batch_size",
            (key, "train.accumulation"),
        )
    if train.gradient_checkpointing:
        yield Problem(
            "a CUDA graph and gradient_checkpointing don't go together; use eager",
            (key, "train.gradient_checkpointing"),
        )
    if train.precision == "fp16":
        yield Problem(
            "a CUDA graph can't scale the loss of fp16; use bf16, or eager",
            (key, "train.precision"),
        )


def word_problems(train: TrainConfig, adapter: AdapterConfig) -> Iterator[Problem]:
    """Yield settings under which a word can't be learned first."""
    key = "train.word_share"
    if train.word_share is None:
        return
    if METHODS[adapter.method].word:
        yield Problem(
            f"{adapter.method} learns nothing but the word; leave it out", (key, "adapter.method")
        )
    elif train.word_lr is None:
        yield Problem("no word is learned; give train.word_lr, too, or leave it out", (key,))
    if train.optimizer.name == "prodigy":
        yield Problem(
            "prodigy finds one step size for the whole run, and the word's is none for the "
            "adapter; use adamw, or leave it out",
            (key, "train.optimizer.name"),
        )


def offload_problems(train: TrainConfig, adapter: AdapterConfig) -> Iterator[Problem]:
    """Yield settings that need the base's weights on the device all the time."""
    method, key = METHODS[adapter.method], "train.offload"
    if not train.offload:
        return
    if not train.gradient_checkpointing:
        yield Problem(
            "needs gradient_checkpointing: true, or weights would be kept for the backward pass",
            (key, "train.gradient_checkpointing"),
        )
    if train.execution in ("compile", "cuda_graph"):
        yield Problem(
            f"{train.execution} needs weights that stay in their place; use eager",
            (key, "train.execution"),
        )
    if train.quantization == "int8":
        yield Problem(
            "int8 weights are kept where they can't be moved; use nf4, or none",
            (key, "train.quantization"),
        )
    if not method.low_rank:
        yield Problem(
            f"{method.name} changes the base's weights themselves; use a low-rank method",
            (key, "adapter.method"),
        )
    elif (method.init or adapter.init).startswith("weights"):
        yield Problem(
            "the start is made from the base's weights, which are not there; use a random one",
            (key, "adapter.init" if method.reads_init else "adapter.method"),
        )
