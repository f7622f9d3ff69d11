"""What ComfyUI's page makes of a workflow: where nodes lie, and what it rounds.

`comfyui_page.json` holds what the pages themselves round to, as
`scripts/other_programs/comfyui_page.py` read it in a browser.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tlora_cli import RankSchedule
from tlora_cli.families import FAMILIES
from tlora_cli.formats.comfyui.export import starts_of
from tlora_cli.formats.comfyui.workflow import Part, node_workflow, workflow
from tlora_cli.formats.slices import wider

PAGES = json.loads((Path(__file__).parent / "comfyui_page.json").read_text())
"""Versions of ComfyUI and its front end -> node and input -> what the page rounds it to."""
SCHEDULE = RankSchedule(64, 32)
START = "CreateHookKeyframe.start_percent"


def parts(family: str, schedule: RankSchedule) -> list[Part]:
    comfyui = FAMILIES[family].comfyui
    assert comfyui is not None
    return [Part(f"{one.end}.safetensors", start) for one, start in starts_of(schedule, comfyui)]


def numbers(nodes: dict[str, Any]) -> list[tuple[str, float]]:
    """Return (node and input, number) of a workflow."""
    return [
        (f"{node['class_type']}.{name}", value)
        for node in nodes.values()
        for name, value in node["inputs"].items()
        if isinstance(value, int | float)
    ]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_pages_keep_every_number_but_the_starts(family: str, page: str) -> None:
    comfyui = FAMILIES[family].comfyui
    assert comfyui is not None
    written = numbers(workflow(comfyui, parts(family, SCHEDULE), "p"))
    written += numbers(node_workflow(comfyui, "a.safetensors", "p"))
    rounds = PAGES[page]
    assert {name for name, value in written if isinstance(value, float)} <= rounds.keys()
    for name, value in written:
        if name in rounds:
            there = round(value / rounds[name]) * rounds[name]
            assert abs(there - value) < (5.1e-4 if name == START else 1e-9), (name, value)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("kind", ["whole", "slices"])
@pytest.mark.parametrize("steps", [20, 25, 28, 30, 50])
def test_rounding_moves_at_most_one_step_by_one_rank(family: str, kind: str, steps: int) -> None:
    schedule = SCHEDULE if kind == "whole" else wider(SCHEDULE, 8)[0]
    given = parts(family, schedule)
    ends = [int(part.file.removesuffix(".safetensors")) for part in given]
    exact = ranks(family, [part.start for part in given], ends, steps)
    there = [None if part.start is None else round(part.start, 3) for part in given]
    assert None in there and 1.0 not in there
    off = [a - b for a, b in zip(ranks(family, there, ends, steps), exact, strict=True)]
    if kind == "whole":
        assert sum(map(bool, off)) <= 1 and max(map(abs, off)) <= 1, off
    else:
        assert not any(off), off


def ranks(family: str, starts: list[float | None], ends: list[int], steps: int) -> list[int]:
    """Return the rank at each step of ComfyUI's sampling: "normal" on SDXL, "simple" on FLUX."""
    if family == "sdxl":  # percent p: timestep 999 (1 - p)
        at = 1 - torch.linspace(999, 0, steps, dtype=torch.float64) / 999
    else:  # percent p: the level of 1 - p under the same shift as the steps
        at = torch.tensor([int(step * 10_000 / steps) / 10_000 for step in range(steps)])
    found = []
    for percent in at.tolist():
        on = [end for start, end in zip(starts, ends, strict=True) if (start or 0.0) <= percent]
        found.append(max(on))
    return found


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_what_is_chosen_by_hand_comes_before_the_hooks(family: str) -> None:
    """The page lays out each column in the order of the numbers."""
    comfyui = FAMILIES[family].comfyui
    assert comfyui is not None
    nodes = workflow(comfyui, parts(family, SCHEDULE), "p")
    kinds = [nodes[str(number + 1)]["class_type"] for number in range(len(nodes))]
    first = kinds.index("CreateHookLoraModelOnly")
    loaders = [kind for kind, _ in comfyui.nodes.values()]
    assert kinds[: len(loaders)] == loaders
    assert "CLIPTextEncode" in kinds[:first] and "CLIPTextEncode" not in kinds[first:]
    assert "FluxGuidance" not in kinds[first:]
