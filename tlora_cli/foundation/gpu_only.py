"""Settings that need a GPU. A recipe, a look ahead and a run all ask here; no torch is imported."""

from __future__ import annotations

from dataclasses import dataclass

from tlora_cli.foundation.errors import Status, UserError


@dataclass(frozen=True)
class GpuOnly:
    """A setting that needs a GPU, and what to tell where there is none.

    Attributes:
        value: what needs it; None: whatever is set, but for False.
        what: the error; {} is the value.
        where: the key, as the error names it.
        do: the remedy.
    """

    value: str | None
    what: str
    where: str
    do: str


GPU_ONLY = {
    "train.quantization": GpuOnly(
        None, "quantization {} needs a CUDA GPU", "quantization", "drop it, or run on a GPU"
    ),
    "train.precision": GpuOnly(
        "fp16", "fp16 needs a GPU", "precision", "use fp32 or bf16 on a CPU"
    ),
    "train.optimizer.name": GpuOnly(
        "adamw8bit",
        "adamw8bit needs a CUDA GPU",
        "train.optimizer.name",
        "use adamw, or run on a GPU",
    ),
    "train.attention": GpuOnly(
        "xformers",
        "xformers attention needs a CUDA GPU",
        "train.attention",
        "pip install 'tlora[cuda]' on a CUDA machine, or use attention: sdpa",
    ),
    "train.offload": GpuOnly(
        None, "offloading needs a CUDA GPU", "offload", "drop it, or run on a GPU"
    ),
    "train.execution": GpuOnly(
        "cuda_graph",
        "a CUDA graph needs a CUDA GPU",
        "train.execution",
        "use execution: auto, or run on a GPU",
    ),
}
"""Key of a recipe -> its value that needs a GPU."""


def needs_gpu(key: str, value: str | bool | None) -> bool:
    """Return whether the value of a recipe's key, one of `GPU_ONLY`, needs a GPU."""
    return value not in (None, False) and GPU_ONLY[key].value in (None, value)


def check_gpu(key: str, value: str | bool | None, on_gpu: bool) -> None:
    """Raise a UserError if a value needs a GPU and none is used.

    Args:
        key: of `GPU_ONLY`.
        value: what the recipe has there.
        on_gpu: whether a GPU is used.
    """
    if not on_gpu and needs_gpu(key, value):
        one = GPU_ONLY[key]
        raise UserError(one.what.format(value), where=one.where, do=one.do, kind=Status.MISSING)
