"""A grid file -> the plan: all cells, and which arm is compared with which."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlora_cli.comparison.cells import Arm, Plan
from tlora_cli.comparison.expansion import Expansion
from tlora_cli.comparison.grid import BaselineConfig
from tlora_cli.comparison.grid_io import MEND, GridFile
from tlora_cli.evaluation.suites import find_suite, read_prompts
from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.mistakes import recipe_error


def make_plan(file: GridFile) -> Plan:
    """Return all cells of a grid, each with a recipe that can run.

    Raises:
        UserError: naming every mistake: axes that don't fit a method, values of variants, pictures
            that are not there.
    """
    expansion = Expansion(file)
    cells = expansion.cells()
    mistakes = expansion.mistakes()
    baselines: dict[Arm, Arm] = {}
    if not mistakes and file.grid.baseline is not None:
        arms = list(dict.fromkeys(cell.arm for cell in cells))
        try:
            baselines = match_baselines(arms, file.grid.baseline)
        except ValueError as error:
            mistakes.append(file.mistake(("baseline",), str(error)))
    prompts = None
    evaluate = file.grid.evaluate
    if evaluate.prompts is not None:
        try:
            prompts = read_prompts(Path(evaluate.prompts), evaluate.sections)
        except UserError as error:
            text = "; ".join(part for part in (error.what, error.do) if part)
            mistakes.append(file.mistake(("evaluate", "prompts"), text))
    elif evaluate.suite is not None:
        prompts = find_suite(evaluate.suite).prompts
    if mistakes:
        raise recipe_error(mistakes, file.source, MEND)
    return Plan(file.grid, cells, baselines, prompts)


def match_baselines(arms: Sequence[Arm], baseline: BaselineConfig) -> dict[Arm, Arm]:
    """Return for each arm the one it is compared with.

    What the baseline leaves out, such as its rank, is that of the arm where there is such a
    baseline: then LoRA of rank 4 is what T-LoRA of rank 4 is compared with.

    Raises:
        ValueError: if for an arm there is none, or more than one.
    """
    asked = baseline.model_dump(exclude_none=True)
    fitting = [arm for arm in arms if all(getattr(arm, k) == v for k, v in asked.items())]
    if not fitting:
        names = ", ".join(arm.name for arm in arms)
        raise ValueError(f"no cell is {_told(asked)}; there are {names}")
    found = {}
    for arm in arms:
        if arm in fitting:
            continue
        like = [one for one in fitting if _agree(one, arm, asked.keys())]
        if len(fitting) > 1 and len(like) != 1:
            names = ", ".join(one.name for one in fitting)
            raise ValueError(f"for {arm.name} it may be any of {names}; say more of it")
        found[arm] = like[0] if like else fitting[0]
    return found


def _agree(baseline: Arm, arm: Arm, asked: Collection[str]) -> bool:
    """Whether a baseline has the arm's values where both have one that was not asked for."""
    return all(
        getattr(arm, key) is None or getattr(baseline, key) in (None, getattr(arm, key))
        for key in ("rank", "schedule", "variant")
        if key not in asked
    )


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
