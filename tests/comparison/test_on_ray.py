"""Comparisons on a Ray cluster: a real one on this machine, where ray is installed."""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compare_runs import grid_values, sitting, tables, write_grid
from training_runs import tlora

from tlora_cli import UserError
from tlora_cli.comparison.on_ray import RayEngine

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'tlora[ray]'"
)

HEAD = """
import sys, ray
found = ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=40)
print(found.address_info["gcs_address"], flush=True)
sys.stdin.read()  # until the test is over
"""


def test_without_ray_it_says_what_to_install(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="ray is not installed") as caught:
        RayEngine("auto")
    assert caught.value.do == "pip install 'tlora[ray]'"


@pytest.fixture
def environment() -> dict[str, str]:
    """Return what this test's cluster and its user share: newer clusters ask for a token."""
    return {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_agent_register_timeout_ms": "300000",
    }


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[str]:
    """Yield the address of a cluster of this machine's own."""
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    assert head.stdout is not None and head.stdin is not None
    yield head.stdout.readline().strip()
    head.stdin.close()
    head.wait(60)


@pytest.mark.slow
@needs_ray
def test_a_cluster_gives_the_same_tables(
    cluster: str, environment: dict[str, str], tiny_sdxl: Path, tmp_path: Path
) -> None:
    """One cell of two fails there and here, the other has the same scores."""
    assert cluster
    values: dict[str, Any] = grid_values(tiny_sdxl, tmp_path)
    values["grid"] = {**values["grid"], "method": ["tlora"], "seed": [0]}
    values["variants"] = {"wild": {"train.optimizer.lr": 1e30}, "calm": {}}
    del values["baseline"]
    here = {**values, "output": str(tmp_path / "here")}
    process = sitting(write_grid(tmp_path / "a.yaml", here), log=tmp_path / "log.txt")
    process.join()
    assert process.exitcode == 1
    grid = write_grid(tmp_path / "b.yaml", {**values, "output": str(tmp_path / "apart" / "there")})
    done = tlora("compare", grid, "--ray", cluster, env=environment)
    assert done.returncode == 1, done.stderr
    assert "[1/2] tlora-r2-linear-calm-toy-s0: done in " in done.stderr
    assert "1 cell failed:\n  tlora-r2-linear-wild-toy-s0: " in done.stderr
    assert "training has diverged" in done.stderr
    assert "Traceback" not in done.stderr
    assert tables(tmp_path / "apart" / "there") == tables(tmp_path / "here")


@pytest.mark.slow
@needs_ray
def test_a_cluster_that_is_not_there(tiny_sdxl: Path, tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "g.yaml", grid_values(tiny_sdxl, tmp_path))
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "auto"):
        done = tlora("compare", grid, "--ray", address)
        assert done.returncode == 4, done.stderr
        assert "no Ray cluster answers" in done.stderr
        assert "Traceback" not in done.stderr
