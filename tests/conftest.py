"""What all tests share: no downloads, one thread, and tiny models made once per worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of huggingface_hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any import of torch

# A suite that was started in the background ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what the program keeps for later runs out of the user's own cache."""
    os.environ["TLORA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny StableDiffusionXLPipeline; read it, do not write to it."""
    from make_tiny_models import write_tiny_sdxl

    folder = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    write_tiny_sdxl(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny FluxPipeline; read it, do not write to it."""
    from make_tiny_models import write_tiny_flux

    folder = tmp_path_factory.mktemp("models") / "tiny-flux"
    write_tiny_flux(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_flux2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny Flux2KleinPipeline; read it, do not write to it."""
    from make_tiny_models import write_tiny_flux2

    folder = tmp_path_factory.mktemp("models") / "tiny-flux2"
    write_tiny_flux2(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_z_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny ZImagePipeline; read it, do not write to it."""
    from make_tiny_models import write_tiny_z_image

    folder = tmp_path_factory.mktemp("models") / "tiny-z_image"
    write_tiny_z_image(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny QwenImagePipeline; read it, do not write to it."""
    from make_tiny_models import write_tiny_qwen_image

    folder = tmp_path_factory.mktemp("models") / "tiny-qwen_image"
    write_tiny_qwen_image(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny StableDiffusion3Pipeline; read it, do not write to it."""
    from make_tiny_models import write_tiny_sd3

    folder = tmp_path_factory.mktemp("models") / "tiny-sd3"
    write_tiny_sd3(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_krea2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny Krea2Pipeline; read it, do not write to it."""
    from make_tiny_models import write_tiny_krea2

    folder = tmp_path_factory.mktemp("models") / "tiny-krea2"
    write_tiny_krea2(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen_image_21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny QwenImage21Pipeline; read it, do not write to it."""
    from make_tiny_models import write_tiny_qwen_image_21

    folder = tmp_path_factory.mktemp("models") / "tiny-qwen_image_21"
    write_tiny_qwen_image_21(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_flux2_dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny Flux2Pipeline; read it, do not write to it."""
    from tiny_flux2_dev import write_tiny_flux2_dev

    return write_tiny_flux2_dev(tmp_path_factory.mktemp("models") / "tiny-flux2-dev")
