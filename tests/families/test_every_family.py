"""What every family says of itself, and what becomes of one that other tools don't know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tlora_cli import RankSchedule, UserError
from tlora_cli.families import FAMILIES, Family, family_of
from tlora_cli.families.flux import Flux
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.formats import FORMATS, AdapterInfo, AdapterWeights
from tlora_cli.foundation.plugins import resolve
from tlora_cli.recipe.models import Recipe

KINDS = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def test_what_recipes_read_loads_neither_torch_nor_diffusers() -> None:
    program = (
        "import sys\n"
        "from tlora_cli.families import FAMILIES\n"
        "from tlora_cli.formats.registry import FORMATS\n"
        "assert [one.pixel_multiple for one in FAMILIES.values()] == [8] + [16] * 6 + [32]\n"
        "assert list(FORMATS), FORMATS\n"
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@KINDS
def test_its_classes_and_samplers_are_there(family: Family) -> None:
    places = [family.denoiser_class, family.pipeline_class, family.vae_class]
    places += family.other_pipelines
    for place in [*places, *(sampler.scheduler for sampler in family.samplers.values())]:
        assert resolve(place).__name__ == place.partition(":")[2]
    assert family.samplers["default"] and family.objectives[0] == "auto"


@KINDS
def test_it_knows_its_own_denoiser_and_layers(family: Family) -> None:
    denoiser = meta_denoiser(family.name)
    assert family_of(denoiser) is family
    layers = list(family.target_layers(denoiser))
    for names in (layers, [name.replace(".", "_") for name in layers]):
        found = [name for name, one in FAMILIES.items() if one.knows(names)]
        assert family.name in found
        # The layers of attention alone are called as a part of those of several other families.
        assert len(found) == (4 if family.name == "qwen_image_21" else 1), found


@KINDS
def test_a_timestep_comes_back_from_what_the_denoiser_is_given(family: Family) -> None:
    """Exactly, whatever dividing by the scale in fp32 has lost."""
    t = torch.arange(1001).float()
    given = family.told(t)
    assert given.dtype == torch.float32
    assert torch.equal(family.timesteps(given.double()), t.double())


# --- a third family ---------------------------------------------------------------------------


class Third(Flux):
    """A family that tlora does not ship, and that sizes and samplers tell from both others."""

    name = "third"
    title = "Third"
    vae_factor = 32
    process = "something else"
    samplers = {"default": Flux.samplers["default"]}  # noqa: RUF012
    kohya = None
    comfyui = None


THIRD = Third()


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> Family:
    """Register the family as a package would."""
    monkeypatch.setitem(FAMILIES._own, "third", f"{__name__}:THIRD")
    found = FAMILIES["third"]
    assert isinstance(found, Family)
    return found


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("kohya", "how kohya's sd-scripts name the layers of Third is not known"),
        ("comfyui", "how ComfyUI loads Third is not known here"),
        ("published", "published T-LoRA checkpoints for third do not exist"),
    ],
)
def test_formats_refuse_a_family_that_their_tools_do_not_know(
    target: str, message: str, third: Family, tmp_path: Path
) -> None:
    layers = {"transformer_blocks.0.attn.to_q": (torch.ones(2, 8), torch.ones(8, 2))}
    weights = AdapterWeights(layers, 1, RankSchedule(2, 1), third.name, AdapterInfo("lora"))
    write = FORMATS[target].write
    assert write is not None
    with pytest.raises(UserError) as refused:
        write(tmp_path / "out", weights, {"transformer_blocks.0.attn.to_q": 8})
    assert refused.value.what == message
    assert not list(tmp_path.iterdir())


def test_formats_of_its_own_names_take_it(third: Family, tmp_path: Path) -> None:
    layers = {"transformer_blocks.0.attn.to_q": (torch.ones(2, 8), torch.ones(8, 2))}
    weights = AdapterWeights(layers, 1, RankSchedule(2, 2), third.name, AdapterInfo("lora"))
    for name in ("tlora", "diffusers"):
        write = FORMATS[name].write
        assert write is not None
        assert write(tmp_path / f"{name}.safetensors", weights, {}) == []


def test_recipes_ask_the_family(third: Family) -> None:
    recipe = Recipe.model_construct(
        family="third",
        **{
            key: value
            for key, value in Recipe.model_validate(
                {
                    "family": "flux",
                    "base": "base",
                    "concept": {"images": "a.png", "class": "dog"},
                    "train": {"resolution": 1040},
                    "sampling": {"scheduler": "euler"},
                    "output": {"dir": "run"},
                }
            )
            if key != "family"
        },
    )
    assert [problem.text for problem in recipe.problems()] == [
        "euler is not defined for something else; use one of default",
        "must be a multiple of 64 for third, got 1040",
    ]
