"""The benchmark runs here, on the smallest job, and its figures are what they are called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark.cases import Case
from benchmark.timing import Spread, measure

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "scripts" / "bench.py"
OTHER = """
import torch

NAME = "theirs"


class Theirs:
    def __init__(self, denoiser):
        self.scale = torch.nn.Parameter(torch.zeros(()))
        denoiser.conv_out.register_forward_hook(lambda m, i, output: output + self.scale * output)

    def parameters(self):
        return [self.scale]


def build(denoiser, *, family, rank):
    return Theirs(denoiser)
"""


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )


@pytest.mark.full
def test_it_measures_steps_and_another_implementation(tmp_path: Path) -> None:
    other = tmp_path / "their_file.py"
    other.write_text(OTHER)
    done = bench(
        tmp_path / "out", "--quick", "--bases", "toy-sdxl", "--methods", "lora,tlora",
        "--modes", "eager", "--parts", "steps", "--rank", 4, "--other", other,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "toy-sdxl.json").read_text())
    cases: dict[str, dict[str, Any]] = {case["method"]: case for case in results["cases"]}
    assert list(cases) == ["bare", "lora", "tlora", "published lora", "published tlora", "theirs"]
    for name, case in cases.items():
        assert case["step"]["median"] > 0, name
        # All start at the bare denoiser.
        assert case["loss_differs"] < 1e-5, name
    assert cases["theirs"]["trained"] == 1
    assert cases["bare"]["flops_to_floor"] == 1
    # The bare denoiser's gradient goes on to the latent, an adapter's only to the first layer.
    lora, tlora = (cases[name]["flops_to_floor"] for name in ("lora", "tlora"))
    assert 0.9 < lora < tlora < 1.1
    assert cases["tlora"]["operations"] > cases["lora"]["operations"] > cases["bare"]["operations"]
    table = (tmp_path / "out" / "toy-sdxl.md").read_text()
    assert table in done.stdout
    assert "| theirs | eager |" in table


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--methods", "lorra"], "'lorra' is none of lora, "),
        (["--bases", "sd15"], "'sd15' is none of toy-sdxl, sdxl, flux"),
        (["--modes", "fast"], "'fast' is none of eager, compile, cuda_graph"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = bench(tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.full
def test_a_file_that_is_no_implementation_is_named(tmp_path: Path) -> None:
    done = bench(tmp_path / "out", "--quick", "--parts", "steps", "--other", tmp_path / "gone.py")
    assert done.returncode == 2
    assert "gone.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_rounds_are_compared_with_the_same_round_of_the_bare_denoiser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each round the computer is slower, all cases alike: the ratio must not see it."""
    clock, speed = [0.0], [1.0]
    monkeypatch.setattr("benchmark.timing.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("benchmark.timing.time.process_time", lambda: clock[0])

    def case(name: str, cost: float) -> Case:
        def step(index: int) -> torch.Tensor:
            clock[0] += cost * (1 + index // 6)  # three first steps, then three a round
            return torch.tensor(1.0)

        def sample(count: int) -> None:
            clock[0] += cost * count * speed[0]

        return Case(name, "eager", step, sample, 0)

    found = measure([case("bare", 1.0), case("tlora", 1.5)], torch.device("cpu"), 4, 3)
    assert found["tlora eager"]["step_ratio"]["low"] == pytest.approx(1.5)
    assert found["tlora eager"]["step_ratio"]["high"] == pytest.approx(1.5)
    assert found["tlora eager"]["step"]["high"] > found["tlora eager"]["step"]["low"]


def test_spread() -> None:
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 1)
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0, 5)
