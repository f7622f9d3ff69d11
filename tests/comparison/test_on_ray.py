"""Comparisons on a Ray cluster: a real one on this machine, where ray is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from compare_runs import grid_values, sitting, tables, write_grid
from training_runs import ROOT, draw_picture, run, same_tensors, tlora, write_recipe

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
        "RAY_worker_niceness": "0",  # else workers starve beside other tests
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_health_check_timeout_ms": "60000",  # on a busy machine nodes are slow, not dead
        "RAY_health_check_failure_threshold": "20",
    }


@dataclass(frozen=True)
class Cluster:
    """A cluster of this machine's own: its address, and the process that started it."""

    address: str
    head: int

    def workers(self, name: str) -> list[psutil.Process]:
        """Return the processes that do a job whose name begins so; Ray's agents are ray::, too."""
        found = []
        for one in psutil.Process(self.head).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "".join(one.cmdline()[:1]).startswith(f"ray::{name}"):
                    found.append(one)
        return found


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[Cluster]:
    """Yield a cluster of this machine's own."""
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    assert head.stdout is not None and head.stdin is not None
    yield Cluster(head.stdout.readline().strip(), head.pid)
    head.stdin.close()
    head.wait(60)


@pytest.mark.full
@needs_ray
def test_a_cluster_gives_the_same_tables(
    cluster: Cluster, environment: dict[str, str], tiny_sdxl: Path, tmp_path: Path
) -> None:
    """One cell of two fails there and here, the other has the same scores."""
    assert cluster.address
    values: dict[str, Any] = grid_values(tiny_sdxl, tmp_path)
    values["grid"] = {**values["grid"], "method": ["tlora"], "seed": [0]}
    values["variants"] = {"wild": {"train.optimizer.lr": 1e30}, "calm": {}}
    del values["baseline"]
    here = {**values, "output": str(tmp_path / "here")}
    process = sitting(write_grid(tmp_path / "a.yaml", here), log=tmp_path / "log.txt")
    process.join()
    assert process.exitcode == 2
    grid = write_grid(tmp_path / "b.yaml", {**values, "output": str(tmp_path / "apart" / "there")})
    done = tlora("compare", grid, "--ray", cluster.address, env=environment)
    assert done.returncode == 2, done.stderr
    assert "[1/2] tlora-r2-linear-calm-toy-s0: done in " in done.stderr
    assert "1 cell failed:\n  tlora-r2-linear-wild-toy-s0: " in done.stderr
    assert "training has diverged" in done.stderr
    assert "Traceback" not in done.stderr
    assert (
        f"runs the failed ones again:\n  tlora compare {grid} --ray {cluster.address}"
        in done.stderr
    )
    assert tables(tmp_path / "apart" / "there") == tables(tmp_path / "here")


@pytest.mark.full
@needs_ray
def test_a_token_that_the_cluster_does_not_take(
    cluster: Cluster, environment: dict[str, str], tiny_sdxl: Path, tmp_path: Path
) -> None:
    grid = write_grid(tmp_path / "g.yaml", grid_values(tiny_sdxl, tmp_path))
    wrong = {**environment, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    missing = {**environment, "RAY_AUTH_TOKEN": ""}
    for given, said in (
        (wrong, "the Ray cluster answers, and doesn't take the token in RAY_AUTH_TOKEN"),
        (missing, "the Ray cluster asks for a token, and RAY_AUTH_TOKEN is not set"),
    ):
        done = tlora("compare", grid, "--ray", cluster.address, env=given)
        assert done.returncode == 3, done.stderr
        assert f"error: {said}\n" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.full
@needs_ray
def test_a_batch_whose_workers_are_killed(
    cluster: Cluster, environment: dict[str, str], tiny_sdxl: Path, tmp_path: Path
) -> None:
    """Twice a worker dies in the midst of a run; adapters are those of undisturbed runs.

    TLORA_PHOTOS=200 trains so many; four of them are trained alone, too.
    """
    photos, out = tmp_path / "photos", tmp_path / "out"
    count = int(os.environ.get("TLORA_PHOTOS", "4"))
    photos.mkdir()
    for number in range(count):
        draw_picture(photos / f"photo{number}.png", number)
    changes: dict[str, Any] = {"train__steps": 20, "train__checkpoint": {"every": 5, "keep": 2}}
    recipe = write_recipe(tiny_sdxl, tmp_path, **changes)
    words = ["batch", photos, "--class", "dog", "--config", recipe, "--output", out]
    command = subprocess.Popen(
        [sys.executable, "-m", "tlora_cli", *map(str, words), "--ray", cluster.address],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killed = 0
    while killed < 2 and command.poll() is None:
        time.sleep(0.02)
        begun = len(list(out.glob("*/run/checkpoints/checkpoint-*")))
        at_work = cluster.workers("photo") if begun > killed else []
        if at_work:
            at_work[0].kill()
            killed += 1
    said, _ = command.communicate(timeout=900 + 30 * count)
    assert command.returncode == 0 and killed == 2, said
    assert f"{count} of {count} have an adapter" in said
    assert len(list(out.glob("*/run/adapter.safetensors"))) == count
    for number in range(0, count, max(1, count // 4)):
        picture = str(photos / f"photo{number}.png")
        alone = run(tiny_sdxl, tmp_path / f"alone{number}", concept__images=picture, **changes)
        adapter = out / f"photo{number}" / "run" / "adapter.safetensors"
        assert alone.adapter is not None and same_tensors(alone.adapter, adapter)


@pytest.mark.full
@needs_ray
def test_a_cluster_that_is_not_there(tiny_sdxl: Path, tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "g.yaml", grid_values(tiny_sdxl, tmp_path))
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "auto"):
        done = tlora("compare", grid, "--ray", address)
        assert done.returncode == 4, done.stderr
        assert "no Ray cluster answers" in done.stderr
        assert "Traceback" not in done.stderr
