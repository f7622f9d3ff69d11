"""Our node for ComfyUI: the same ranks, factors and answers as tlora itself.

scripts/other_programs/comfyui.py runs it in the real ComfyUI.
"""

from __future__ import annotations

import ast
import json
import sys
import types
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import (
    LEAST,
    RANK,
    command,
    convert,
    denoiser,
    masked_update,
    random_adapter,
    write_bases,
)
from torch import nn

from tlora_cli import RankSchedule, UserError, load_adapter
from tlora_cli.families import FAMILIES
from tlora_cli.formats import tlora_file
from tlora_cli.formats.comfyui.node import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from tlora_cli.formats.comfyui.node.adapter_file import AdapterFile, UnreadableError, read
from tlora_cli.formats.comfyui.node.loader import LoadAdapter, chosen_schedule
from tlora_cli.formats.comfyui.node.masked import MaskedUpdate, Place, places
from tlora_cli.formats.comfyui.node.ranks import Schedule, read_schedule
from tlora_cli.formats.schedule_fields import format_version, schedule_fields
from tlora_cli.formats.tlora_header import texts
from tlora_cli.formulas.noise_axis import NoiseAxis
from tlora_cli.formulas.schedules import SCHEDULES
from tlora_cli.tools.comfyui_node import SOURCE, install

POINTS = [(0, 6), (300, 4), (800, 1)]
SIGNAL = tuple(float(x) for x in torch.linspace(0.999, 0.001, 1000, dtype=torch.float64))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_bases(tmp_path_factory.mktemp("bases"))


# --- ranks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("axis", [None, NoiseAxis(1.5, 0.6, SIGNAL)], ids=["t", "logsnr"])
@pytest.mark.parametrize("alpha", [1.0, 0.7])
def test_the_ranks_are_those_of_tlora(kind: str, axis: NoiseAxis | None, alpha: float) -> None:
    points = POINTS if SCHEDULES[kind].takes_points else None
    ours = RankSchedule(16, 5, alpha, kind, points=points, seed=7, axis=axis)
    header = texts({"format_version": format_version(ours), **schedule_fields(ours)})
    t = torch.cat([torch.arange(1001).double(), torch.rand(500, dtype=torch.float64) * 1000])
    assert torch.equal(read_schedule(header).ranks(t), ours.active_rank(t))


def test_an_unknown_kind_is_told() -> None:
    with pytest.raises(ValueError, match="'wavy' is not known; update the node"):
        Schedule(4, 2, kind="wavy").ranks(torch.tensor([1.0]))


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["tlora", "lycoris", "published"])
@pytest.mark.parametrize("method", ["tlora", "vanilla_tlora"])
def test_every_format_holds_the_same_update(
    method: str, target: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    source = tmp_path / "ours.safetensors"
    weights = random_adapter(source, "sdxl", method)
    there = source
    if target != "tlora":
        there = tmp_path / ("folder" if target == "published" else "there.safetensors")
        convert(source, "--to", target, "--base", bases["sdxl"], "--output", there)
    if there.is_dir():
        [there] = there.rglob("*.safetensors")
    file = read(there)
    schedule = chosen_schedule(file, LEAST if target == "published" else 0)
    assert file.layers.keys() == {name.replace(".", "_") for name in weights.layers}
    for t in (0, 400, 999):
        [rank] = schedule.ranks(torch.tensor([t])).tolist()
        mask = (torch.arange(RANK) < rank).double().repeat(file.copies)
        for name in weights.layers:
            down, up = (one.double() for one in file.layers[name.replace(".", "_")])
            expected = masked_update(weights, name, t)
            assert (
                up @ (mask[:, None] * down) - expected
            ).abs().max() < 1e-5 * expected.abs().max()


def test_what_it_refuses(bases: dict[str, Path], tmp_path: Path) -> None:
    source, plain = tmp_path / "ours.safetensors", tmp_path / "plain.safetensors"
    random_adapter(source, "sdxl")
    convert(source, "--to", "diffusers", "--base", bases["sdxl"], "--output", plain)
    with pytest.raises(UnreadableError, match="Use ComfyUI's own LoRA loader"):
        read(plain)
    lycoris, cut = tmp_path / "lycoris.safetensors", tmp_path / "cut.safetensors"
    convert(source, "--to", "lycoris", "--base", bases["sdxl"], "--output", lycoris)
    from safetensors.torch import load_file, save_file

    kept = {key: value for key, value in load_file(lycoris).items() if ".base_" not in key}
    save_file(kept, cut)
    with pytest.raises(UnreadableError, match="does not hold its start"):
        read(cut)
    silent = tmp_path / "silent.safetensors"
    save_file(load_file(lycoris), silent)
    with pytest.raises(UnreadableError, match="set min_rank"):
        chosen_schedule(read(silent), 0)
    with pytest.raises(UnreadableError, match="min_rank 9 is above the file's rank, 6"):
        chosen_schedule(read(lycoris), 9)
    newer = tmp_path / "newer.safetensors"
    save_file(load_file(source), newer, metadata={"tlora.format_version": "9"})
    with pytest.raises(UnreadableError, match="of a newer tlora"):
        read(newer)
    save_file(load_file(source), newer, metadata={"tlora.format_version": "3"})
    with pytest.raises(UnreadableError, match=r"a training checkpoint.*tlora convert RUN"):
        read(newer)
    damaged = tmp_path / "damaged.safetensors"
    save_file(load_file(source), damaged, metadata={"tlora.format_version": "1"})
    with pytest.raises(UnreadableError, match="is damaged: 'tlora"):
        read(damaged)


# --- the model --------------------------------------------------------------------------------


def key_map(model: nn.Module) -> dict[str, Any]:
    """Return names as ComfyUI tells them, for a model whose names are diffusers' own."""
    return {
        "lora_unet_" + name.replace(".", "_"): f"diffusion_model.{name}.weight"
        for name, _ in model.named_modules()
    }


def update_of(file: AdapterFile, model: nn.Module, strength: float = 1.0) -> MaskedUpdate:
    assert file.schedule is not None
    where = places(key_map(model), list(file.layers))
    layers = [(where[name], pair) for name, pair in file.layers.items()]
    return MaskedUpdate(layers, file.copies, file.schedule, 1.0, strength)


def answer(model: nn.Module, t: torch.Tensor) -> torch.Tensor:
    chance = torch.Generator().manual_seed(1)
    x = torch.randn(len(t), 4, 16, 16, generator=chance)
    words = torch.randn(len(t), 5, 24, generator=chance)
    with torch.no_grad():
        return torch.as_tensor(model(x, t, words).sample)


@pytest.mark.parametrize("targets", ["linear", "all"])
@pytest.mark.parametrize("method", ["tlora", "vanilla_tlora"])
def test_the_model_answers_as_under_our_adapter(method: str, targets: str, tmp_path: Path) -> None:
    """Each sample of a batch under the mask of its own timestep; afterwards nothing is left."""
    source = tmp_path / "ours.safetensors"
    weights = random_adapter(tmp_path / "large.safetensors", "sdxl", method, targets=targets)
    layers = {name: (down, 0.02 * up) for name, (down, up) in weights.layers.items()}
    tlora_file.write(source, replace(weights, layers=layers), timestep_scale=None)
    torch.manual_seed(5)
    model = denoiser("sdxl").eval()
    t = torch.tensor([10, 950])
    before = answer(model, t)
    update, x = update_of(read(source), model), torch.zeros(2)
    with ExitStack() as hooks:
        update.attach(model, x, t, hooks)
        found = answer(model, t)
    assert torch.equal(answer(model, t), before)
    load_adapter(model, source)
    expected = answer(model, t)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (expected - before).abs().max() > 1e-3 * expected.abs().max()


def test_strength_scales_the_update(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    pair = torch.randn(4, 3), torch.randn(2, 4)
    model = nn.ModuleDict({"one": layer})
    x, t = torch.randn(2, 3), torch.tensor([0.0, 999.0])
    schedule = Schedule(4, 1)
    whole = layer(x) + 0.5 * torch.stack(
        [x[0] @ pair[0].T @ pair[1].T, x[1] @ pair[0][:1].T @ pair[1][:, :1].T]
    )
    update = MaskedUpdate([(Place("one"), pair)], 1, schedule, 1.0, 0.5)
    with ExitStack() as hooks:
        update.attach(model, x, t, hooks)
        assert torch.allclose(layer(x), whole, atol=1e-6)


def test_a_part_of_a_fused_layer_is_changed(tmp_path: Path) -> None:
    """Queries, keys and values are one layer of FLUX; factors of the keys change its middle."""
    layer = nn.Linear(3, 6)
    pair = torch.randn(2, 3), torch.randn(2, 2)
    where = places({"lycoris_a_to_k": ("diffusion_model.a.qkv.weight", (0, 2, 2))}, ["a_to_k"])
    assert where == {"a_to_k": Place("a.qkv", (2, 2))}
    model = nn.ModuleDict({"a": nn.ModuleDict({"qkv": layer})})
    x = torch.randn(1, 4, 3)
    update = MaskedUpdate([(where["a_to_k"], pair)], 1, Schedule(2, 2), 1000.0, 1.0)
    before = layer(x)
    with ExitStack() as hooks:
        update.attach(model, x, torch.tensor([0.3]), hooks)
        change = layer(x) - before
    assert torch.allclose(change[..., 2:4], x @ pair[0].T @ pair[1].T, atol=1e-6)
    assert not change[..., :2].any() and not change[..., 4:].any()


def test_outputs_that_stand_the_other_way_round_there_are_turned() -> None:
    """ComfyUI has the halves of Stable Diffusion 3's last modulation of the text swapped."""
    layer = nn.Linear(3, 4, bias=False)
    pair = torch.randn(2, 3), torch.randn(4, 2)

    def swapped(weight: torch.Tensor) -> torch.Tensor:
        return weight.roll(2, dims=0)

    where = places({"lora_transformer_a": ("diffusion_model.a.weight", None, swapped)}, ["a"])
    model = nn.ModuleDict({"a": layer})
    x = torch.randn(2, 3)
    before = layer(x)
    update = MaskedUpdate([(where["a"], pair)], 1, Schedule(2, 2), 1.0, 1.0)
    with ExitStack() as hooks:
        update.attach(model, x, torch.tensor([3.0, 3.0]), hooks)
        change = layer(x) - before
    assert torch.allclose(change, x @ (swapped(pair[1]) @ pair[0]).T, atol=1e-6)


def test_the_model_is_changed_while_it_is_called_from_outside(tmp_path: Path) -> None:
    """Not by a wrapper around the model's own call, for which some of its classes never ask."""
    layer = nn.Linear(3, 2)

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor, timesteps: torch.Tensor, context: Any) -> torch.Tensor:
            return self.layer(x) if context else timesteps

    outer = types.SimpleNamespace(diffusion_model=Inner())
    pair = torch.randn(4, 3), torch.randn(2, 4)
    update = MaskedUpdate([(Place("layer"), pair)], 1, Schedule(4, 2), 1000.0, 1.0)

    class Executor:
        class_obj = outer

        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, cond: bool) -> torch.Tensor:
            return outer.diffusion_model(x, sigma / 1000, context=cond)

    x, bare = torch.randn(2, 3), layer.weight.detach().clone()
    before = layer(x)
    found = update(Executor(), x, torch.tensor([1000.0, 1000.0]), cond=True)
    assert torch.allclose(found - before, x @ (pair[1][:, :2] @ pair[0][:2]).T, atol=1e-6)
    assert torch.equal(layer(x), before) and torch.equal(layer.weight, bare)


# --- the node in ComfyUI ----------------------------------------------------------------------


class Patcher:
    """Stands for ComfyUI's ModelPatcher."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.wrappers = model, []

    def clone(self) -> Patcher:
        return Patcher(self.model)

    def get_model_object(self, name: str) -> Any:
        assert name == "model_sampling"
        return types.SimpleNamespace(timestep=lambda sigma: sigma)

    def add_wrapper_with_key(self, kind: str, key: str, wrapper: Any) -> None:
        self.wrappers.append((kind, key, wrapper))


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    modules = {
        "folder_paths": {
            "get_filename_list": lambda kind: [f"a file of {kind}"],
            "get_full_path_or_raise": lambda kind, name: str(tmp_path / name),
        },
        "comfy": {},
        "comfy.lora": {"model_lora_keys_unet": lambda model, given: key_map(model)},
        "comfy.patcher_extension": {"WrappersMP": types.SimpleNamespace(APPLY_MODEL="model")},
        "comfy.model_sampling": {"CONST": type("CONST", (), {})},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("comfy")
def test_the_node_puts_a_wrapper_on_a_copy(tmp_path: Path) -> None:
    random_adapter(tmp_path / "ours.safetensors", "sdxl")
    given = Patcher(denoiser("sdxl"))
    [adapted] = LoadAdapter().load(given, "ours.safetensors", 0.5)
    assert not given.wrappers
    [(kind, key, update)] = adapted.wrappers
    assert (kind, key) == ("model", "tlora ours.safetensors")
    assert (update.strength, update.timestep_scale, update.schedule.min_rank) == (0.5, 1.0, LEAST)
    [again] = LoadAdapter().load(given, "ours.safetensors", 0.5, min_rank=1)
    assert again.wrappers[0][2].schedule.min_rank == 1
    assert LoadAdapter().load(given, "ours.safetensors", 0.0) == (given,)


@pytest.mark.usefixtures("comfy")
def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    random_adapter(tmp_path / "flux.safetensors", "flux")
    with pytest.raises(ValueError, match="this model lacks: single_transformer_blocks_0"):
        LoadAdapter().load(Patcher(denoiser("sdxl")), "flux.safetensors", 1.0)


def test_it_imports_nothing_but_comfyui_and_what_comfyui_has() -> None:
    allowed = {"torch", "safetensors", "comfy", "folder_paths", *sys.stdlib_module_names}
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert all(name.split(".")[0] in allowed for name in names), (path, names)


# --- the workflows ----------------------------------------------------------------------------

KNOWN = json.loads((Path(__file__).parent / "comfyui_nodes.json").read_text())
"""Version of ComfyUI -> node -> what it takes and gives, as the servers themselves said it."""


SINCE = {
    "sdxl": "0.3.64",
    "flux": "0.3.64",
    "flux2": "0.33.0",
    "z_image": "0.8.0",
    "qwen_image": "0.8.0",
    "sd3": "0.8.0",
    "krea2": "0.33.0",
}
"""Family -> the first of these versions in which its workflow was run."""


def parts(version: str) -> list[int]:
    """Return a version's numbers."""
    return [int(part) for part in version.split(".")]


def check_against(known: dict[str, Any], nodes: dict[str, Any]) -> None:
    """Every input is one that ComfyUI knows, of the right type and within its bounds."""
    for number, node in nodes.items():
        kind, inputs = known[node["class_type"]], node["inputs"]
        takes = kind["required"] | kind["optional"]
        assert kind["required"].keys() <= inputs.keys() <= takes.keys(), (number, node)
        for name, value in inputs.items():
            wanted, about = takes[name]
            if isinstance(value, list):
                source = known[nodes[value[0]]["class_type"]]
                assert source["output"][value[1]] == wanted, (number, name)
            elif wanted in ("FLOAT", "INT"):
                assert about["min"] <= value <= about["max"], (number, name)
            elif isinstance(wanted, list) and wanted and not str(value).endswith(".safetensors"):
                assert value in wanted, (number, name)


def test_every_workflow_is_of_a_family_that_was_run() -> None:
    assert SINCE.keys() == {name for name, family in FAMILIES.items() if family.comfyui}


@pytest.mark.parametrize(
    ("family", "version"),
    [(name, one) for name, since in SINCE.items() for one in KNOWN if parts(one) >= parts(since)],
)
@pytest.mark.usefixtures("comfy")
def test_workflows_fit_the_real_nodes(
    family: str, version: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    source, folder = tmp_path / "dog.safetensors", tmp_path / "dog"
    random_adapter(source, family, schedule=RankSchedule(RANK, 1))
    convert(source, "--to", "comfyui", "--base", bases[family], "--output", folder)
    (tmp_path / "custom_nodes").mkdir()
    own = install(tmp_path) / "workflows" / f"{family}.json"
    ours = {"output": ["MODEL"], **{part: {
        name: [about[0], about[1] if len(about) > 1 else {}]
        for name, about in LoadAdapter.INPUT_TYPES()[part].items()
    } for part in ("required", "optional")}}  # fmt: skip
    assert NODE_CLASS_MAPPINGS.keys() == NODE_DISPLAY_NAME_MAPPINGS.keys() == {"TLoRALoader"}
    known = {**KNOWN[version], "TLoRALoader": ours}
    for path in (folder / "workflow.json", own):
        nodes = json.loads(path.read_text())
        check_against(known, nodes)
        for node in nodes.values():
            if "start_percent" in node["inputs"]:
                assert node["inputs"]["start_percent"] <= 0.999, "the page rounds to thousandths"


# --- the command ------------------------------------------------------------------------------


def test_the_command_writes_and_replaces_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no folder custom_nodes"):
        command("comfyui", tmp_path)
    (tmp_path / "custom_nodes" / "other").mkdir(parents=True)
    said = command("comfyui", tmp_path)
    folder = tmp_path / "custom_nodes" / "tlora"
    assert str(folder) in said
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    families = {f"workflows/{name}.json" for name, one in FAMILIES.items() if one.comfyui}
    assert names == {path.name for path in SOURCE.glob("*.py")} | families
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "ranks.cpython-311.pyc").write_bytes(b"")
    (folder / "ranks.py").write_text("old")
    command("comfyui", tmp_path)
    assert (folder / "ranks.py").read_text() == (SOURCE / "ranks.py").read_text()
    (folder / "mine.py").write_text("my own")
    (folder / "ranks.py").write_text("old")
    with pytest.raises(UserError, match="files that are not of the node, such as mine"):
        command("comfyui", tmp_path)
    assert (folder / "ranks.py").read_text() == "old"
