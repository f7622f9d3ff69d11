"""The tiny models are what they claim to be: real pipelines, small, and alive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    Flux2KleinPipeline,
    FluxPipeline,
    Krea2Pipeline,
    QwenImage21Pipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    ZImagePipeline,
)
from make_tiny_models import WRITERS, main
from safetensors.torch import load_file
from training_runs import run_python

from tlora_cli.families import FAMILIES as KINDS
from tlora_cli.families import family_of

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ("sdxl", "flux", "flux2", "z_image", "qwen_image", "sd3", "krea2", "qwen_image_21")
ONE_TEXT = (*FAMILIES[2:5], "krea2", "qwen_image_21")
"""Those with the text of one language model."""
WORDS = ("a", "the", "of", "dog", "cat", "sks", "teapot", "snow", "beach", "7", "don't", "naïve")
PARTS = {
    "sdxl": {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "scheduler": "EulerDiscreteScheduler",
    },
    "flux": {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "T5Tokenizer",
        "transformer": "FluxTransformer2DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
    "flux2": {
        "vae": "AutoencoderKLFlux2",
        "text_encoder": "Qwen3ForCausalLM",
        "tokenizer": "Qwen2Tokenizer",
        "transformer": "Flux2Transformer2DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
    "sd3": {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "tokenizer_3": "T5Tokenizer",
        "transformer": "SD3Transformer2DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
    "z_image": {
        "vae": "AutoencoderKL",
        "text_encoder": "Qwen3Model",
        "tokenizer": "Qwen2Tokenizer",
        "transformer": "ZImageTransformer2DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
    "qwen_image": {
        "vae": "AutoencoderKLQwenImage",
        "text_encoder": "Qwen2_5_VLForConditionalGeneration",
        "tokenizer": "Qwen2Tokenizer",
        "transformer": "QwenImageTransformer2DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
    "krea2": {
        "vae": "AutoencoderKLQwenImage",
        "text_encoder": "Qwen3VLModel",
        "tokenizer": "Qwen2Tokenizer",
        "transformer": "Krea2Transformer2DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
    "qwen_image_21": {
        "vae": "AutoencoderKLQwenImage21",
        "text_encoder": "Qwen3VLForConditionalGeneration",
        "processor": "Qwen3VLProcessor",
        "transformer": "QwenImage21Transformer2DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(family: str, request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(f"tiny_{family}"))


@pytest.fixture
def pipeline(family: str, folder: Path) -> Any:
    pipeline_class = {
        "sdxl": StableDiffusionXLPipeline,
        "flux": FluxPipeline,
        "flux2": Flux2KleinPipeline,
        "z_image": ZImagePipeline,
        "qwen_image": QwenImagePipeline,
        "sd3": StableDiffusion3Pipeline,
        "krea2": Krea2Pipeline,
        "qwen_image_21": QwenImage21Pipeline,
    }[family]
    made = KINDS[family].made_parts(str(folder), None)
    pipeline = pipeline_class.from_pretrained(folder, **made)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Any, prompt: str, size: int = 64, seed: int = 0) -> np.ndarray:
    """Return a picture (size, size, 3) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return pipeline(
        prompt=prompt,
        width=size,
        height=size,
        num_inference_steps=2,
        generator=generator,
        output_type="np",
    ).images[0]


def test_has_every_part(family: str, folder: Path, pipeline: Any) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    parts = {name: index[name][1] for name, part in pipeline.components.items() if part}
    assert parts == PARTS[family]


def test_weights_are_float32_and_finite(family: str, folder: Path) -> None:
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == (3 if family in ONE_TEXT else 5 if family == "sd3" else 4)
    for file in files:
        for name, tensor in load_file(file).items():
            if name.endswith("num_batches_tracked"):  # of FLUX.2's batch norm, a whole number
                continue
            assert tensor.dtype == torch.float32, (file, name)
            assert tensor.isfinite().all(), (file, name)


def test_is_small(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 5_000_000


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_tokenizers_tell_words_apart(family: str, pipeline: Any, name: str) -> None:
    tokenizer = getattr(pipeline, name, None)
    if tokenizer is None:
        pytest.skip("it has one tokenizer")
    long = family in ONE_TEXT or (family == "flux" and name == "tokenizer_2")
    assert tokenizer.model_max_length == (512 if long else 77)
    ids = [tuple(tokenizer(word).input_ids) for word in WORDS]
    assert len(set(ids)) == len(WORDS)
    allowed = 0 if long else 1
    assert all(word.count(tokenizer.unk_token_id) <= allowed for word in ids)
    assert tokenizer.decode(tokenizer("a dog").input_ids, skip_special_tokens=True) == "a dog"
    padded = tokenizer("a dog", padding="max_length").input_ids
    assert len(padded) == tokenizer.model_max_length
    assert padded[-1] == tokenizer.pad_token_id
    assert max(max(word) for word in ids) < len(tokenizer)


def test_text_encoders_know_their_end_token(pipeline: Any) -> None:
    config = pipeline.text_encoder.config.get_text_config()
    processor = getattr(pipeline, "processor", None)
    tokenizer = processor.tokenizer if processor else pipeline.tokenizer
    assert config.eos_token_id == tokenizer.eos_token_id
    assert config.vocab_size == len(tokenizer)
    if hasattr(pipeline, "text_encoder_2"):
        assert pipeline.text_encoder_2.config.vocab_size == len(pipeline.tokenizer_2)


def test_schedulers_are_the_published_ones(family: str, folder: Path) -> None:
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    published: dict[str, Any] = {
        "sdxl": {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "interpolation_type": "linear",
            "prediction_type": "epsilon",
            "steps_offset": 1,
            "timestep_spacing": "leading",
        },
        "flux": {
            "shift": 3.0,
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
        "z_image": {"shift": 6.0, "use_dynamic_shifting": False},
        "sd3": {"shift": 3.0, "use_dynamic_shifting": False},
        "qwen_image": {
            "shift": 1.0,
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 0.9,
            "base_image_seq_len": 256,
            "max_image_seq_len": 8192,
            "shift_terminal": 0.02,
        },
        "krea2": {
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 6400,
        },
    }["flux" if family in ("flux2", "qwen_image_21") else family]
    assert config.items() >= published.items()


def test_picture_is_finite_and_depends_on_prompt_and_seed(family: str, pipeline: Any) -> None:
    dog = draw(pipeline, "a photo of a dog")
    assert dog.shape == (64, 64, 4 if family == "qwen_image_21" else 3)
    assert np.isfinite(dog).all()
    assert 0.05 < dog.std() < 0.45
    assert np.array_equal(dog, draw(pipeline, "a photo of a dog"))
    assert abs(dog - draw(pipeline, "a photo of a cat")).mean() > 1e-3
    assert abs(dog - draw(pipeline, "a photo of a dog", seed=1)).mean() > 1e-2


def test_draws_larger_pictures(pipeline: Any) -> None:
    assert draw(pipeline, "a photo of a dog", size=128).shape[:2] == (128, 128)


def test_latents_have_a_natural_spread(pipeline: Any) -> None:
    kind = family_of(pipeline)
    latents = kind.encode_image(pipeline.vae, torch.linspace(-1, 1, 64).expand(3, 64, 64))
    assert 0.3 < latents.mean.std() < 3
    assert latents.std.mean() < 0.1


def test_same_seed_same_bytes(family: str, folder: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    WRITERS[family](tmp_path / "again", 0)
    assert torch.equal(state, torch.get_rng_state())
    files = {file.relative_to(folder): file.read_bytes() for file in _files(folder)}
    again = tmp_path / "again"
    assert {file.relative_to(again): file.read_bytes() for file in _files(again)} == files


def test_another_seed_other_weights(family: str, folder: Path, tmp_path: Path) -> None:
    WRITERS[family](tmp_path / "other", 1)
    weights = "text_encoder/model.safetensors"
    assert (tmp_path / "other" / weights).read_bytes() != (folder / weights).read_bytes()


def test_refuses_a_folder_with_contents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "tiny-flux" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert main([str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "tiny-flux exists already" in captured.err
    assert captured.out == ""
    assert [file.name for file in tmp_path.rglob("*")] == ["tiny-flux", "kept.txt"]
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("exists", [False, True])
def test_fills_a_new_or_empty_folder(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "tiny-flux").mkdir()
    WRITERS["flux"](tmp_path / "tiny-flux", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-flux"]
    assert (tmp_path / "tiny-flux" / "model_index.json").is_file()


def test_command(tmp_path: Path) -> None:
    words = ["make_tiny_models.py", str(tmp_path), "--family", "flux"]
    done = run_python(
        f"import runpy, sys; sys.argv = {words}; sys.path.insert(0, 'scripts');"
        "runpy.run_path('scripts/make_tiny_models.py', run_name='__main__')"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {tmp_path / 'tiny-flux'} (")
    assert not (tmp_path / "tiny-sdxl").exists()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
