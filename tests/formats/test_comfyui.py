"""Files for other tools hold the same update, and ComfyUI's workflow the same mask."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapter_files import (
    LEAST,
    RANK,
    UNET,
    close,
    convert,
    masked_update,
    random_adapter,
    write_bases,
)
from comfyui_graphs import SHIFTS, Comfy, percent_to_level, update_of
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file

from tlora_cli import RankSchedule, UserError
from tlora_cli.families import FAMILIES
from tlora_cli.formats import read_adapter
from tlora_cli.formats.slices import MARGIN, slices_of, wider
from tlora_cli.formulas.noise_axis import NoiseAxis


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_bases(tmp_path_factory.mktemp("bases"))


def test_flux_is_fused_as_the_original_model_has_it(bases: dict[str, Path], tmp_path: Path) -> None:
    source, there = tmp_path / "ours.safetensors", tmp_path / "kohya.safetensors"
    weights = random_adapter(source, "flux", "lora")
    convert(source, "--to", "kohya", "--base", bases["flux"], "--output", there)
    tensors = load_file(there)
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    down, up = tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"]
    assert (down.shape, up.shape) == ((3 * RANK, 32), (96, 3 * RANK))
    assert float(tensors[f"{stem}.alpha"]) == 3 * RANK
    parts = [masked_update(weights, f"transformer_blocks.0.attn.to_{x}", 0) for x in "qkv"]
    assert close((up @ down).double(), torch.cat(parts))
    single = tensors["lora_unet_single_blocks_1_linear1.lora_up.weight"]
    assert single.shape == (3 * 32 + 4 * 32, 3 * RANK)
    assert not single[3 * 32 :].any(), "the layer's other rows are not adapted"
    with safe_open(there, "pt") as file:
        header = file.metadata()
    assert header["modelspec.architecture"] == "flux-1-dev/lora"
    assert header["modelspec.trigger_phrase"] == "sks dog"
    assert header["ss_steps"] == "800"


@pytest.mark.parametrize("target", ["tlora", "diffusers", "kohya"])
def test_diffusers_loads_it_at_the_right_scale(
    target: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    """A stock UNet with the file's LoRA differs from the bare one by the update alone."""
    source, there = tmp_path / "ours.safetensors", tmp_path / "there.safetensors"
    weights = random_adapter(source, "sdxl")
    convert(source, "--to", target, "--base", bases["sdxl"], "--output", there)
    from diffusers import StableDiffusionXLPipeline

    unet = UNet2DConditionModel(**UNET)
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    state, alphas, metadata = StableDiffusionXLPipeline.lora_state_dict(
        there, unet_config=unet.config, return_lora_metadata=True
    )
    StableDiffusionXLPipeline.load_lora_into_unet(state, alphas, unet, metadata=metadata)
    unet.fuse_lora()
    for layer in weights.layers:
        name = f"{layer}.base_layer.weight"
        changed = dict(unet.named_parameters())[name].double() - before[f"{layer}.weight"].double()
        assert (changed - masked_update(weights, layer, 0)).abs().max() < 1e-4, layer


# --- ComfyUI ----------------------------------------------------------------------------------


SCHEDULES = {
    "linear": RankSchedule(RANK, LEAST),
    "from one": RankSchedule(RANK, 1, alpha=0.7),
    "cosine": RankSchedule(RANK, LEAST, kind="cosine"),
    "step": RankSchedule(RANK, 1, kind="step", points=[(0, 6), (300, 4), (800, 1)]),
    "constant": RankSchedule(RANK, RANK, kind="constant"),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("method", ["tlora", "vanilla_tlora"])
def test_comfyui_sums_the_slices_to_the_masked_update(
    method: str, family: str, schedule: RankSchedule, bases: dict[str, Path], tmp_path: Path
) -> None:
    source, folder = tmp_path / "dog.safetensors", tmp_path / "dog"
    weights = random_adapter(source, family, method, schedule)
    convert(source, "--to", "comfyui", "--base", bases[family], "--output", folder)
    comfy = Comfy(folder, family)
    held = {
        (file, layer): update_of(lora, family, layer)
        for file, lora in comfy.files.items()
        for layer in weights.layers
    }
    highest = 1000 if family == "flux" else 999
    # Starts end at 0.999, t = 1 on SDXL and 3.2 on FLUX: below, the last rank is on too early.
    lowest = 4 if family == "flux" else 1
    times = [*torch.linspace(highest, lowest, 50).tolist(), 300, 800, 799, 250]
    seen = set()
    for t in times:
        files = comfy.active(t)
        seen.add(len(files))
        for layer in weights.layers:
            found = torch.stack([held[file, layer] for file in files]).sum(0)
            assert close(found, masked_update(weights, layer, t)), (t, layer)
    assert len(seen) > 1 or schedule.kind == "constant", "the slices switched on one by one"
    layer = list(weights.layers)[3]
    plain = update_of(comfy.files["dog-plain.safetensors"], family, layer)
    assert close(plain, weights.layers[layer][1].double() @ weights.layers[layer][0].double())


@pytest.mark.parametrize("family", [*SHIFTS])
def test_starts_are_by_the_shift_of_comfyui(family: str) -> None:
    """A percent's noise level, turned back into a percent, is itself."""
    comfyui = FAMILIES[family].comfyui
    assert comfyui is not None
    for percent in (0.1, 0.5, 0.9):
        level = percent_to_level(family, percent)
        assert comfyui.start_percent(1000 * level) == pytest.approx(percent, abs=1e-9)


@pytest.mark.parametrize("family", [family for family in SHIFTS if family != "flux"])
def test_other_families_sum_to_the_masked_update_too(
    family: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    source, folder, back = (
        tmp_path / "dog.safetensors",
        tmp_path / "dog",
        tmp_path / "b.safetensors",
    )
    weights = random_adapter(source, family, "tlora", targets="linear")
    convert(source, "--to", "comfyui", "--base", bases[family], "--output", folder)
    comfy = Comfy(folder, family)
    for t in (1000.0, 700.0, 450.0, 10.0):
        files = comfy.active(t)
        for layer in weights.layers:
            found = sum(update_of(comfy.files[file], family, layer) for file in files)
            assert close(found, masked_update(weights, layer, t)), (t, layer)
    convert(folder / "dog-plain.safetensors", "--base", bases[family], "--output", back)
    again = read_adapter(back, [])
    assert (again.family, again.layers.keys()) == (family, weights.layers.keys())
    for layer, (down, up) in weights.layers.items():
        found = again.layers[layer][1].double() @ again.layers[layer][0].double()
        assert close(found, up.double() @ down.double()), layer


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "qwen_image_21"])
def test_the_workflow_is_whole(family: str, bases: dict[str, Path], tmp_path: Path) -> None:
    source, folder = tmp_path / "dog.safetensors", tmp_path / "dog"
    random_adapter(source, family, schedule=RankSchedule(RANK, 1))
    said = convert(source, "--to", "comfyui", "--base", bases[family], "--output", folder)
    assert "models/loras" in said
    comfy = Comfy(folder, family)
    for number, node in comfy.nodes.items():
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                assert value[0] in comfy.nodes, (number, name)
                assert int(value[0]) < int(number), "a node needs what comes before it"
            if name == "lora_name":
                assert (folder / value).exists()
    sampler = comfy.only("KSampler")
    pair = comfy.only("PairConditioningSetProperties")
    assert sampler["positive"][0] == sampler["negative"][0], "the hooks act on both sides"
    assert comfy.nodes[pair["positive_NEW"][0]]["class_type"] in ("CLIPTextEncode", "FluxGuidance")
    texts = [n["inputs"]["text"] for n in comfy.nodes.values() if "text" in n["inputs"]]
    assert "a photo of a sks dog" in texts


def test_a_file_that_does_not_say_its_concept_has_no_hole_in_its_prompt(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    source, lora = tmp_path / "dog.safetensors", tmp_path / "lora.safetensors"
    random_adapter(source, "sdxl", method="lora")
    convert(source, "--to", "kohya", "--base", bases["sdxl"], "--output", lora)
    convert(lora, "--to", "comfyui", "--base", bases["sdxl"], "--output", tmp_path / "dog")
    texts = [n["inputs"].get("text") for n in Comfy(tmp_path / "dog", "sdxl").nodes.values()]
    assert "a photo" in texts and "a photo of a" not in texts


def test_many_slices_are_combined_in_groups(bases: dict[str, Path], tmp_path: Path) -> None:
    """Twenty hooks need three nodes of eight, and one for these."""
    from tlora_cli.families.sdxl import SDXL
    from tlora_cli.formats.comfyui.workflow import Part, workflow

    graph = workflow(
        SDXL.comfyui, [Part(f"{n}.safetensors", n / 20 or None) for n in range(20)], "p"
    )
    kinds = [node["class_type"] for node in graph.values()]
    assert kinds.count("CombineHooks8") == 4
    (tmp_path / "workflow.json").write_text(json.dumps(graph))
    link = Comfy(tmp_path, "sdxl").only("PairConditioningSetProperties")["hooks"]
    assert len(Comfy(tmp_path, "sdxl").hooks(link)) == 20


def test_slices_of_the_published_schedule() -> None:
    """Component k >= r_min is on below T (1 - (k + 1 - r_min) / (R - r_min)) (eq. 4)."""
    found = slices_of(RankSchedule(64, 32))
    assert [(one.first, one.end) for one in found] == [
        (0, 32),
        *((k, k + 1) for k in range(32, 64)),
    ]
    for one in found[1:]:
        expected = 1000 * (1 - (one.first + 1 - 32) / 32)
        assert one.below == pytest.approx(expected + 1e-3, abs=1e-9)


# --- bad input --------------------------------------------------------------------------------


def test_mistakes(bases: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "dog.safetensors"
    random_adapter(source, "sdxl", schedule=RankSchedule(RANK, LEAST, kind="reversed"))
    base = ("--base", bases["sdxl"])
    attempts: list[tuple[tuple[str | Path, ...], str]] = [
        (("--to", "kohia", "--output", tmp_path / "a.safetensors"), "did you mean kohya"),
        (("--to", "kohya", "--output", tmp_path / "a"), "must end in .safetensors"),
        (("--to", "comfyui", "--output", tmp_path / "a.safetensors"), "must be a folder"),
        (("--to", "comfyui", "--output", tmp_path), "the output folder exists already"),
        (("--to", "kohya", "--output", source), "the output file exists already"),
        (("--to", "comfyui", "--output", tmp_path / "b"), "reversed schedule switches ranks off"),
    ]
    for arguments, message in attempts:
        with pytest.raises(UserError) as caught:
            convert(source, *base, *arguments)
        assert message in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dog.safetensors"]


BY_NOISE = NoiseAxis(2.0, 0.1, torch.linspace(0.999, 0.002, 1000).square().tolist())


@pytest.mark.parametrize(
    ("schedule", "count", "off"),
    [
        (RankSchedule(64, 32), 8, 2),
        (RankSchedule(64, 32), 33, 0),
        (RankSchedule(64, 1), 8, 4),
        (RankSchedule(64, 32, alpha=2.0), 5, 4),
        (RankSchedule(64, 16, kind="cosine"), 8, 3),
        (RankSchedule(64, 32, axis=BY_NOISE), 8, 2),
        (RankSchedule(64, 64, kind="constant"), 2, 0),
        (RankSchedule(16, 4, kind="step", points=[(0, 16), (300, 9), (800, 4)]), 2, 5),
    ],
)
def test_wider_slices_are_off_by_as_many_ranks_as_they_say(
    schedule: RankSchedule, count: int, off: int
) -> None:
    steps, told = wider(schedule, count)
    assert told == off and len(slices_of(steps)) <= count
    t = torch.linspace(0, 1000, 40_001, dtype=torch.float64)
    ends = torch.tensor([one.below or 2000.0 for one in slices_of(schedule)])
    t = t[(t[:, None] - ends).abs().min(1).values > 3 * MARGIN]  # where slices switch by design
    found = (steps.active_rank(t) - schedule.active_rank(t)).abs().max()
    assert int(found) == off
    assert steps.active_rank(1000.0) == schedule.active_rank(1000.0)
    assert steps.active_rank(0.0) == schedule.active_rank(0.0)
    assert steps.axis == schedule.axis, "what is said of the base's noise levels is said here, too"


def test_a_workflow_of_few_slices_says_what_it_costs(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    source, folder = tmp_path / "dog.safetensors", tmp_path / "dog"
    weights = random_adapter(source, "sdxl", schedule=RankSchedule(RANK, 1))
    base = ("--base", bases["sdxl"])
    said = convert(source, "--to", "comfyui", *base, "--output", folder, "--slices", "3")
    steps, off = wider(RankSchedule(RANK, 1), 3)
    assert f"at most {off} of {RANK} ranks are on too early or too late" in said
    comfy = Comfy(folder, "sdxl")
    assert len(list(folder.glob("*-ranks-*.safetensors"))) == 3
    layer = next(iter(weights.layers))
    for t in (999, 800, 500, 200, 2):
        found = sum(update_of(comfy.files[file], "sdxl", layer) for file in comfy.active(t))
        rank = steps.active_rank(float(t))
        masked = RankSchedule(RANK, RANK, kind="step", points=[(0, rank)])
        expected = masked_update(replace(weights, schedule=masked), layer, t)
        assert close(found, expected), t
    with pytest.raises(UserError, match="kohya has no slices"):
        convert(source, "--to", "kohya", *base, "--output", tmp_path / "x.safetensors",
                "--slices", "3")  # fmt: skip
