"""Runs killed with SIGKILL at seeded moments, many of them while saving: nothing is lost.

The quick tests kill four runs, the full ones eight. TLORA_KILLS is how many; 100 are many:
`TLORA_KILLS=100 TLORA_SEED=7 pytest tests/training/test_kills.py`; the seed is that of the moments.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from breaking.kills import (
    KINDS,
    PREVIEW,
    PRODIGY,
    RUNS,
    Moment,
    kill_all,
    kill_and_resume,
    moments_of,
    run_whole,
)

from tlora_cli.families import FAMILIES

COUNT = int(os.environ.get("TLORA_KILLS", "4"))
SEED = 4
"""Of the moments; the first eight have each kind of moment and each run."""
ASKED = int(os.environ.get("TLORA_SEED", SEED))


@pytest.mark.parametrize(
    "runs", [range(COUNT), pytest.param(range(4, 8), id="more", marks=pytest.mark.full)]
)
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(
    runs: range, tiny_sdxl: Path, tiny_flux: Path, tmp_path: Path
) -> None:
    bases = {"sdxl": tiny_sdxl, "flux": tiny_flux}
    assert kill_all(runs, ASKED, bases, tmp_path, print) >= len(runs)


def test_the_moments_reach_every_kind_and_every_run() -> None:
    few = [moments_of(SEED, number) for number in range(8)]
    assert {name for name, _ in few} == set(RUNS)
    assert {moment.kind for _, moments in few for moment in moments} == set(KINDS)


@pytest.mark.full
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("sdxl", "flux")])
def test_a_killed_run_of_any_other_family_resumes_to_the_same_bits(
    family: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once while saving, and once more, in the midst of a write, while it goes on."""
    bases = {family: request.getfixturevalue(f"tiny_{family}")}
    monkeypatch.setitem(RUNS, family, (family, {"rank": 4, "min_rank": 2}, {**PRODIGY, **PREVIEW}))
    whole = run_whole(family, bases, tmp_path / "whole")
    moments = [Moment("saving", 0.5), Moment("torn", 0.4)]
    seen = kill_and_resume(family, bases, tmp_path / "killed", moments, whole)
    assert seen.count("ended") < len(moments) + 1, "it was never killed"
