"""Headers of the files for other tools, and what they can't say."""

from __future__ import annotations

from datetime import UTC, datetime

from tlora_cli.families import FAMILIES
from tlora_cli.formats.weights import AdapterWeights


def model_spec(weights: AdapterWeights) -> dict[str, str]:
    """Return the modelspec fields that tools show; all values are text."""
    info = weights.info
    fields = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": FAMILIES[weights.family or ""].architecture or "",
        "modelspec.date": datetime.now(UTC).date().isoformat(),
        "modelspec.trigger_phrase": info.concept,
        "ss_steps": "" if info.train_steps is None else str(info.train_steps),
        "ss_seed": "" if info.seed is None else str(info.seed),
    }
    return {name: value for name, value in fields.items() if value}


def mask_lost(weights: AdapterWeights) -> list[str]:
    """Return a warning if the ranks follow a schedule that a plain LoRA can't have."""
    schedule = weights.schedule
    if schedule is None or schedule.always_full:
        return []
    return [
        f"the rank schedule is gone: all {schedule.rank} ranks act at every timestep, as they "
        "never did in training" + ("; `--to comfyui` keeps it" if comfyui_keeps(weights) else "")
    ]


def comfyui_keeps(weights: AdapterWeights) -> bool:
    """Say whether the schedule can be kept by another format: how ComfyUI loads the family."""
    family = FAMILIES.get(weights.family or "")
    return family is not None and family.comfyui is not None
