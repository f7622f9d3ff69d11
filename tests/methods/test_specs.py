"""What methods and schedules say of themselves, and that recipes and `attach` read the same."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from small_denoisers import make_transformer, make_unet

from tlora_cli import attach
from tlora_cli.formulas.schedules import SCHEDULES, RankSchedule
from tlora_cli.methods import DEFAULT, METHODS, PLAIN, method_of_pair
from tlora_cli.methods.tlora import PRINCIPAL, STARTS
from tlora_cli.recipe.models import Recipe

LEAST: dict[str, Any] = {
    "base": "a base",
    "concept": {"images": "a.png", "class": "dog"},
    "output": {"dir": "out"},
}
MASKED = [name for name, method in METHODS.items() if method.masked]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name: str) -> None:
    method = METHODS[name]
    assert method.name == name
    assert (method.update is None) != (method.weights is None), "one formula"
    assert not method.masked or method.low_rank, "only ranks can be masked"
    assert not (method.divides and method.low_rank)
    if method.low_rank and not method.masked:
        assert method.masked_form in MASKED
    assert method.init is None or method.init in STARTS
    assert (method.size in method.reads) == (method.size != "none")


def test_pairs_of_factors_have_a_method() -> None:
    assert method_of_pair(2, masked=True).name == DEFAULT
    assert method_of_pair(1, masked=False).name == PLAIN
    for copies in (1, 2):
        for masked in (True, False):
            found = method_of_pair(copies, masked)
            assert found.update is not None
            assert (found.update.copies, found.masked) == (copies, masked)


def test_starts_by_name() -> None:
    assert METHODS["pissa"].start_name(None) == PRINCIPAL
    assert METHODS["tlora"].start_name("random_last") == "random_last"
    assert METHODS["lora"].start_name(PRINCIPAL) is None


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_says_what_it_is(name: str) -> None:
    kind = SCHEDULES[name]
    points = [(0, 4), (1000, 4)] if kind.takes_points else None
    assert RankSchedule(4, 2, kind=name, points=points).always_full == kind.always_full
    assert RankSchedule(4, 4, kind=name, points=points).always_full != kind.takes_points


@pytest.mark.parametrize("method", MASKED)
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_the_least_rank_is_one_rule(family: str, method: str) -> None:
    """Published: half the rank on SDXL, 1 on FLUX."""
    recipe = Recipe.model_validate(
        {**LEAST, "family": family, "adapter": {"method": method, "rank": 8}}
    )
    adapter = attach(make_unet() if family == "sdxl" else make_transformer(), method, 8)
    assert adapter.schedule is not None
    assert recipe.adapter.min_rank == adapter.schedule.min_rank == {"sdxl": 4, "flux": 1}[family]


def test_facts_are_read_without_torch() -> None:
    code = (
        "import sys\n"
        "from tlora_cli.formulas.schedules import SCHEDULES\n"
        "from tlora_cli.methods import METHODS\n"
        "assert list(METHODS.values()) and list(SCHEDULES.values())\n"
        "assert not {'torch', 'numpy', 'diffusers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
