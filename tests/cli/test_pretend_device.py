"""Every command on a device that fails as a card does where tensors of both are mixed.

What comes out is what comes out on the CPU, up to rounding; and it is counted how often the host
waits for the device. `tests/pretend_device.py` says what such a device can't see.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from fork_server import ForkServer
from PIL import Image
from pretend_device import NAME, WAITS_FILE
from safetensors.torch import load_file
from training_runs import fork_server, pretend_server, write_recipe

from tlora_cli.families import FAMILIES
from tlora_cli.methods import METHODS

SHORT: dict[str, Any] = {
    "train__device": "auto",
    "train__steps": 4,
    # Steps in proportion to gradients: Adam's own are as large where a gradient is rounding.
    "train__optimizer": {"name": "adamw", "lr": 0.1, "eps": 1.0},
}
PREVIEWS: dict[str, Any] = {
    "train__preview": {"every": 2, "prompts": ["a V*"], "count": 1},
}
TOY = ("--metric", "clip=toy-clip", "--metric", "dino=toy-vit")


class Twins:
    """The same commands on the CPU and on the device, each in a folder of its own.

    Attributes:
        folders: by kind of device.
        said: what the commands have printed, likewise.
        waits: of the last command on the device.
    """

    def __init__(self, tiny: Path, folder: Path) -> None:
        self.tiny = tiny
        self.folders = {kind: folder / kind for kind in ("cpu", NAME)}
        self.said = dict.fromkeys(self.folders, "")
        self.waits: dict[str, int] = {}
        self._file = folder / "waits.json"

    def recipe(self, device: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> None:
        """Write the recipe of a run, recipe-in.yaml; `device` are changes for the device alone."""
        for kind, folder in self.folders.items():
            more = device if kind == NAME else {}
            write_recipe(self.tiny, folder, **{**SHORT, **changes, **more})

    def run(self, *words: object) -> None:
        """Run a command on both; {} in a word is the folder."""
        for kind, server in self._servers():
            folder = self.folders[kind]
            given = [str(one).replace("{}", str(folder)) for one in words]
            environment = {**os.environ, WAITS_FILE: str(self._file)}
            done = server.run(given, str(folder), environment, 600)
            self.said[kind] += done.stdout + done.stderr
            assert done.returncode == 0, f"{kind}: {done.stdout}{done.stderr}"
        self.waits = json.loads(self._file.read_text("utf-8"))

    def _servers(self) -> Iterator[tuple[str, ForkServer]]:
        yield "cpu", fork_server()
        yield NAME, pretend_server()

    def train(self, **changes: Any) -> None:
        """Train on both, and see that the adapters are the same."""
        self.recipe(**changes)
        self.run("train", "--config", "recipe-in.yaml")
        assert "  1.0 GB" in self.said[NAME], "it has not trained on the device"
        self.same_adapters()

    def same_adapters(
        self, name: str = "run/adapter.safetensors", share: float = 1e-3, most: float = 1e-7
    ) -> None:
        """See that two files agree, up to a share of each tensor's largest value."""
        here, there = (load_file(folder / name) for folder in self.folders.values())
        assert here.keys() == there.keys() and here
        for key, tensor in here.items():
            apart, size = ((there[key] - tensor).abs().max(), tensor.abs().max())
            assert apart <= share * size + most, f"{key}: {apart:.2g} of {size:.2g}"

    def same_pictures(self, pattern: str, levels: float = 1.0) -> None:
        """See that pictures agree, on average up to so many levels of 255."""
        cpu, device = self.folders.values()
        found = sorted(cpu.glob(pattern))
        assert found
        for file in found:
            with Image.open(file) as a, Image.open(device / file.relative_to(cpu)) as b:
                apart = np.abs(np.asarray(a, float) - np.asarray(b, float))
            assert apart.mean() <= levels, f"{file.name}: {apart.mean()}"

    def waited(self, *places: str) -> int:
        """Return how often the host waited in the last command, at places named so."""
        counts = (n for at, n in self.waits.items() if any(re.search(p, at) for p in places))
        return sum(counts)


@pytest.fixture
def twins(tiny_sdxl: Path, tmp_path: Path) -> Twins:
    return Twins(tiny_sdxl, tmp_path)


# --- what the device does -------------------------------------------------------------------------


def test_a_run_waits_for_its_losses_and_saves_in_one_pass(twins: Twins) -> None:
    twins.train(train__checkpoint={"every": 2, "keep": 2})
    saves = 2
    # The start, what is trained, its checksum, the optimizer's state, and whether all is finite.
    assert twins.waited("keep_start", "save_trained", "checksum", "to_dict", ":save ") == 5 * saves
    assert twins.waited("write_result", "adapter.py:weights") == 2
    assert sum(twins.waits.values()) == 5 * saves + 2, twins.waits
    twins.run("sample", "--adapter", "run/adapter.safetensors", "--prompt", "V*", "--output", "s")
    twins.same_pictures("s/*.png")


def test_what_a_card_refuses_is_refused(tmp_path: Path) -> None:
    """The device would find a tensor that was left on the CPU, and `numpy` of its own."""
    program = tmp_path / "mixed.py"
    program.write_text(
        "import torch, pretend_device\n"
        "pretend_device.install()\n"
        "there = torch.ones(3, device='pretend')\n"
        "for wrong in (lambda: there + torch.ones(3), there.numpy):\n"
        "    try:\n"
        "        wrong()\n"
        "    except (RuntimeError, TypeError) as error:\n"
        "        print(error)\n"
        "print((there * 2 + torch.tensor(1.0)).sum().item(), dict(pretend_device.WAITS))\n"
    )
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"},
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Expected all tensors to be on the same device"), done.stderr
    assert lines[1].startswith("can't convert pretend:0 tensor to numpy")
    assert lines[2].startswith("9.0 ") and "_local_scalar_dense" in lines[2]


# --- commands -------------------------------------------------------------------------------------


@pytest.mark.full
def test_previews_resuming_and_what_is_made_of_an_adapter(twins: Twins) -> None:
    twins.recipe(train__steps=2, **PREVIEWS)
    twins.run("train", "--config", "recipe-in.yaml")
    twins.run("train", "--config", "recipe-in.yaml", "--resume", "--set", "train.steps=4")
    twins.same_adapters()
    twins.same_pictures("run/previews/**/*.png")
    adapter = "run/adapter.safetensors"
    twins.run("merge", adapter, "--output", "merged.safetensors")
    twins.same_adapters("merged.safetensors")
    twins.run("convert", adapter, "--to", "kohya", "--output", "k.safetensors")
    twins.same_adapters("k.safetensors")
    twins.run("analyze", "--adapter", adapter, "--output", "analysis")
    twins.run("sheet", "run", "--prompt", "a V*", "--over", "step,scale", "--output", "sheets")
    twins.same_pictures("sheets/*.png")
    twins.run("validate", "recipe-in.yaml", "--set", "output.dir=other", "--deep")


@pytest.mark.full
def test_evaluate(twins: Twins) -> None:
    twins.recipe()
    twins.run("train", "--config", "recipe-in.yaml")
    given = ("--mask", "none", "--count", 1, "--base-count", 1)
    twins.run("evaluate", "--adapter", "run/adapter.safetensors", *TOY, *given, "--output", "e")
    twins.same_pictures("e/pictures/**/*.png")
    here, there = (
        json.loads((folder / "e" / "results.json").read_text("utf-8"))["results"]
        for folder in twins.folders.values()
    )
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert there[name] == pytest.approx(value, abs=2e-2), name


@pytest.mark.full
def test_choosing_the_step(tmp_path: Path) -> None:
    """A base that comes with encoders of its own."""
    Twins(Path("toy-sdxl"), tmp_path).train(
        train__select="auto", train__checkpoint={"every": 2, "keep": 2}
    )


@pytest.mark.full
def test_compare(twins: Twins) -> None:
    for folder in twins.folders.values():
        write_recipe(twins.tiny, folder, **SHORT)
        values = json.loads((folder / "recipe-in.yaml").read_text("utf-8"))
        concept = {"name": "toy", **values.pop("concept")}
        del values["adapter"]
        values["output"] = {"trackers": []}
        (folder / "prompts.json").write_text('["a V* in the snow"]')
        grid = {
            "recipe": values,
            "output": str(folder / "runs"),
            "grid": {"method": ["lora", "tlora"], "rank": [2], "concept": [concept], "seed": [0]},
            "evaluate": {
                **{"metrics": ["clip=toy-clip"], "prompts": str(folder / "prompts.json")},
                **{"count": 1, "base_count": 1, "free_count": 0, "batch_size": 1, "mask": "none"},
            },
        }
        (folder / "grid.yaml").write_text(json.dumps(grid))
    twins.run("compare", "grid.yaml")
    cpu = twins.folders["cpu"]
    files = sorted(cpu.glob("runs/**/adapter.safetensors"))
    files = [file for file in files if "checkpoint-" not in str(file)]
    assert len(files) == 2
    for file in files:
        twins.same_adapters(str(file.relative_to(cpu)))


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, twins: Twins) -> None:
    spec = METHODS[method]
    adapter: dict[str, Any] = {"method": method}
    if spec.low_rank:
        adapter |= {"rank": 4} | ({"min_rank": 2} if spec.masked else {})
    elif spec.divides:
        adapter["blocks"] = 4
    twins.train(adapter=adapter)


RECIPES: dict[str, dict[str, Any]] = {
    "class pictures": {"concept__prior": {"count": 2}},
    "accumulation and recomputing": {
        "train__accumulation": 2,
        "train__gradient_checkpointing": True,
    },
    "an average": {"train__ema": {}},
    "prodigy": {"train__optimizer": {"name": "prodigy"}},
    "phrases": {"concept__phrases": ["wearing a hat"]},
}


@pytest.mark.full
@pytest.mark.parametrize("name", RECIPES)
def test_other_recipes(name: str, twins: Twins) -> None:
    twins.train(**RECIPES[name])


@pytest.mark.full
@pytest.mark.parametrize(
    "device",
    [
        {"train__precision": "bf16"},
        {"train__precision": "fp16"},
    ],
    ids=["bf16", "fp16"],
)
def test_what_a_cpu_does_not_do(device: dict[str, Any], twins: Twins) -> None:
    twins.recipe(device)
    twins.run("train", "--config", "recipe-in.yaml")
    twins.same_adapters(share=0.1, most=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tiny: Path = request.getfixturevalue(f"tiny_{family}")
    twins = Twins(tiny, tmp_path)
    twins.train(**PREVIEWS)
    twins.same_pictures("run/previews/**/*.png")
    adapter = "run/adapter.safetensors"
    twins.run("sample", "--adapter", adapter, "--prompt", "V*", "--output", "s")
    twins.same_pictures("s/*.png")
    twins.run("merge", adapter, "--output", "merged.safetensors")
    twins.same_adapters("merged.safetensors")
