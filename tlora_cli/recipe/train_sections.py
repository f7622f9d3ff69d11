"""The recipe's `train`, and its sections: optimizer, learning rate, timesteps, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator

from tlora_cli.foundation.number_formats import Precision
from tlora_cli.photos.framing import CROPS
from tlora_cli.recipe.strict_section import ObjectiveName, Problem, Section


def _default_lr(data: dict[str, Any]) -> float:
    """Prodigy finds the step size itself: its lr is a factor."""
    return 1.0 if data["name"] == "prodigy" else 1e-4


class OptimizerConfig(Section):
    """The optimizer of the adapter's parameters."""

    name: Literal["adamw", "adamw8bit", "prodigy"] = Field(
        "adamw",
        description="adamw; adamw8bit: its memory in 8 bits, on a GPU (bitsandbytes); prodigy: "
        "finds the step size by itself.",
    )
    lr: float = Field(
        default_factory=_default_lr,
        gt=0,
        description="Learning rate. Default: 1e-4; 1.0 for prodigy.",
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.999),
        strict=False,
        description="Shares of the running means of gradients and of their squares kept at a step.",
    )
    eps: float = Field(1e-8, gt=0, description="Added where a step is divided by, against zero.")
    weight_decay: float = Field(
        1e-4, ge=0, description="Pull of the weights to zero, as a multiple of lr (decoupled)."
    )

    @field_validator("betas")
    @classmethod
    def _betas_in_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("must lie in [0, 1)")
        return value


class LRScheduleConfig(Section):
    """Learning rate over the run."""

    name: Literal["constant", "linear", "cosine", "polynomial"] = Field(
        "constant",
        description="After the warm-up: constant, or falling to 0 at the last step along a line, "
        "half a cosine, or a parabola (polynomial).",
    )
    warmup_steps: int = Field(0, ge=0, description="Steps in which it rises from 0.")


class TimestepConfig(Section):
    """The timesteps that are trained."""

    low: int = Field(0, ge=0, le=999, description="Least timestep, included; 0 is least noisy.")
    high: int = Field(1000, ge=1, le=1000, description="End of the interval, excluded.")
    distribution: Literal["uniform", "logit_normal"] = Field(
        "uniform", description="All alike, or mostly those in the middle of low..high."
    )
    mean: float = Field(0.0, description="Mean of the logit (logit_normal).")
    std: float = Field(1.0, gt=0, description="Standard deviation of the logit (logit_normal).")

    def problems(self) -> Iterator[Problem]:
        """Yield an empty interval."""
        if self.low >= self.high:
            yield Problem(f"{self.low} is not below high {self.high}", ("low", "high"))


class PreserveConfig(Section):
    """Hold the class where the base has it, without class pictures.

    The adapted model's answer to the class prompt is held to the base's own on the same noisy
    latent. It costs a second pass in each step, and a third without gradients.
    """

    weight: float = Field(1.0, gt=0, description="How much it counts against the concept's loss.")


class EMAConfig(Section):
    """An average of the weights over the last steps: calmer than the weights of the last step."""

    decay: float = Field(
        0.99,
        gt=0,
        lt=1,
        description="Share of the average that is kept at a step; after n steps at most "
        "(1 + n) / (10 + n), so that it looks back over a tenth of a short run, and at 0.99 over "
        "100 steps of a long one.",
    )


class CheckpointConfig(Section):
    """Checkpoints to resume from."""

    every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep: int = Field(2, ge=1, description="How many of the last ones stay on disk.")


class PreviewConfig(Section):
    """Pictures drawn while training, with the settings of `sampling`."""

    every: int = Field(
        100, ge=1, description="Steps between previews; the first come before the first step."
    )
    prompts: list[str] = Field(min_length=1, description="Prompts; V* stands for the concept.")
    seed: int = Field(0, ge=0, description="Seed of the first picture of each prompt.")
    count: int = Field(1, ge=1, description="Pictures per prompt.")


class TrainConfig(Section):
    """The training of the adapter."""

    steps: int = Field(800, ge=1, description="Optimizer steps.")
    batch_size: int = Field(1, ge=1, description="Pictures of the concept per forward pass.")
    accumulation: int = Field(1, ge=1, description="Forward passes per optimizer step.")
    resolution: int = Field(
        1024,
        ge=8,
        multiple_of=8,
        description="Side of the training square in pixels; with crop: none, of a square of as many"
        " pixels.",
    )
    crop: Literal["center", "subject", "none"] = Field(
        "center",
        description="What of a photo is trained on. "
        + "; ".join(f"{name}: {about}" for name, about in CROPS.items())
        + ".",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the adapter's start and of every step's noise."
    )
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    word_lr: float | None = Field(
        None,
        gt=0,
        description="Learning rate of the placeholder's own embedding, learned beside the adapter "
        "(pivotal tuning); null: it stays as it is, but for methods that are a learned word.",
    )
    word_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the steps, the first ones, that learn the word alone; then it stays, "
        "and the others learn the adapter. The rate runs through lr_schedule in each part. null: "
        "both are learned all the time.",
    )
    lr_schedule: LRScheduleConfig = Field(default_factory=LRScheduleConfig)
    max_grad_norm: float | None = Field(
        None, gt=0, description="Length (L2) that longer gradients are scaled down to; null: never."
    )
    timesteps: TimestepConfig = Field(default_factory=TimestepConfig)
    preserve: PreserveConfig | None = Field(
        None, description="Hold the class to the base's own answers; null: it may drift."
    )
    objective: ObjectiveName = Field(
        "auto",
        description="What the base model predicts; auto reads it from its scheduler. A wrong one "
        "gives noise.",
    )
    guidance: float = Field(
        1.0, ge=0, description="Guidance value given to a guidance-distilled model (FLUX.1-dev)."
    )
    precision: Precision = Field("bf16", description="Number format of the frozen base model.")
    quantization: Literal["nf4", "int8"] | None = Field(
        None,
        description="Frozen base in 4 (nf4) or 8 bits (int8) by bitsandbytes, on a GPU: for "
        "memory, not for speed.",
    )
    attention: Literal["sdpa", "xformers"] = Field(
        "sdpa", description="Attention kernel: PyTorch's own, or that of xformers."
    )
    execution: Literal["auto", "eager", "compile", "cuda_graph"] = Field(
        "auto",
        description="How a step is run; all give the same losses. eager: operation by operation. "
        "compile: the repeated blocks by torch.compile, for low-rank methods. cuda_graph: forward "
        "and backward pass recorded once and replayed. auto: compile on a CPU if the run is long "
        "enough to pay for it, else eager.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations: less memory, about 1.5 times the work."
    )
    offload: bool = Field(
        False,
        description="The base's blocks wait in main memory, and each is on the GPU only while it "
        "computes: least memory of the card, and slower. Needs gradient_checkpointing.",
    )
    memory: Literal["24gb", "16gb", "12gb", "8gb"] | None = Field(
        None,
        description="Settings with which a run fits a card of this size, under your own: "
        "quantization, gradient_checkpointing, offload, and a smaller resolution where it must be.",
    )
    ema: EMAConfig | None = Field(
        None,
        description="Average of the weights, in place of the last ones in adapter files, previews "
        "and scores; null: none. `{}` is one with its default.",
    )
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    select: Literal["last", "auto"] = Field(
        "last",
        description="Which checkpoint becomes the result. last: the last one. auto: each is scored "
        "with a few pictures, for likeness and for agreement with prompts, and the best balance is "
        "kept.",
    )
    preview: PreviewConfig | None = Field(
        None, description="Pictures while training; null: none are drawn."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to compute; auto: on a CUDA GPU if there is one."
    )
