"""The built-in world as the program knows it: its plug-in."""

from __future__ import annotations

from pathlib import Path

from tlora_cli.foundation.bundled import Bundle
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.factors import FACTORS
from tlora_cli.toyworld.scores import SCORES
from tlora_cli.toyworld.settings import photo_settings, settings
from tlora_cli.toyworld.suites import fixed_contexts, phrases, places

FOLDER = Path(__file__).parent

BUNDLE = Bundle(
    title="the built-in world",
    models=FOLDER / "models",
    pictures=FOLDER / "pictures",
    prefix="toy:",
    bases={"toy-sdxl": "sdxl", "toy-flux": "flux"},
    encoders={"clip": "toy-clip", "dino": "toy-vit"},
    concepts={name: concept.class_name for name, concept in CONCEPTS.items()},
    class_words=FACTORS["class"],
    settings=settings,
    scoring_prompts=fixed_contexts(),
    preview_prompts=("a photo of a V* in the snow, on the right", "a photo of a V* in a meadow"),
    example_picture="toy:momo/1",
    batch_size=32,
    license="apache-2.0",
    places=places(),
    phrases=phrases(),
    photo=photo_settings,
    evaluation="tlora_cli.toyworld.evaluation:find_evaluation",
    recognizes="tlora_cli.toyworld.recognition:is_drawing",
    scores=SCORES,
    plotted=("TS*", "ID*"),
)
