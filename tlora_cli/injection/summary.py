"""An adapter on a model in one line: `tlora on SDXL, rank 64 (linear, least 32), "sks dog"`."""

from __future__ import annotations

from tlora_cli.families import Family
from tlora_cli.formats.weights import AdapterInfo
from tlora_cli.formulas.schedules import SCHEDULES, RankSchedule
from tlora_cli.methods import PLAIN


def summary_of(
    info: AdapterInfo,
    family: Family,
    schedule: RankSchedule | None,
    blocks: int | None,
    layers: int,
    scale: float,
) -> str:
    """Return method, family, ranks, blocks, concept, number of layers and strength in one line."""
    parts = [f"{info.method or PLAIN} on {family.title}"]
    if schedule is not None:
        plain = schedule.always_full or SCHEDULES[schedule.kind].takes_points
        least = "" if plain else f", least {schedule.min_rank}"
        parts.append(f"rank {schedule.rank} ({schedule.title}{least})")
    if blocks is not None:
        parts.append(f"{blocks} blocks")
    if info.concept:
        parts.append(f'"{info.concept}"')
    parts.append(f"{layers} layers")
    if scale != 1:
        parts.append(f"scale {scale:g}")
    return ", ".join(parts)
