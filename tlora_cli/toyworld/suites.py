"""Tasks of a model: factor combinations for a base, contexts for a learned concept."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tlora_cli.toyworld.captions import ACCESSORY_WORDS, BACKGROUND_WORDS, prompt
from tlora_cli.toyworld.concepts import Concept
from tlora_cli.toyworld.factors import FACTORS, Scene, draw_factors


@dataclass(frozen=True)
class Task:
    """One prompt.

    Attributes:
        text: the prompt; V* stands for a concept.
        asked: attribute -> value, what the prompt names.
        seed: of the picture.
    """

    text: str
    asked: dict[str, str]
    seed: int


def base_tasks(count: int, held_out: bool, seed: int = 0) -> list[Task]:
    """Return prompts that name all five factors, of held-out or of seen combinations.

    An accessory `none` is asked for by silence.
    """
    rng = random.Random(f"gate {held_out} {seed}")
    drawn = [draw_factors(rng, held_out) for _ in range(count)]
    return [Task(prompt(values), values, number) for number, values in enumerate(drawn)]


def base_prompt(concept: Concept, count: int, seed: int = 0) -> list[Task]:
    """Return the base prompt "a photo of a V*" with different seeds."""
    return [
        Task("a photo of a V*", {"class": concept.class_name}, seed + number)
        for number in range(count)
    ]


def contexts(
    concept: Concept, count: int, training: Scene | None = None, seed: int = 0
) -> list[Task]:
    """Return prompts that put the concept elsewhere.

    Each names a background, a position and an accessory, all other than the training picture's.
    Values are dealt in turn, so that each comes up equally often.

    Args:
        concept: what was learned.
        count: how many prompts.
        training: its training picture; default: the concept's first.
        seed: of the deal; pictures are drawn with seed, seed + 1, ...
    """
    training = training or concept.scenes()[0]
    rng = random.Random(f"contexts {concept.name} {seed}")
    decks = {}
    for name in ("background", "position", "accessory"):
        others = [v for v in FACTORS[name] if v != training[name] and v != "none"]
        decks[name] = [value for _ in range(count // len(others) + 1) for value in others][:count]
        rng.shuffle(decks[name])
    tasks = []
    for number in range(count):
        asked = {name: deck[number] for name, deck in decks.items()}
        text = prompt(asked, "a V*")
        tasks.append(Task(text, {"class": concept.class_name, **asked}, seed + number))
    return tasks


def fixed_contexts() -> tuple[str, ...]:
    """Return a prompt for each background, with V*; positions and accessories come in turn.

    They don't depend on what was learned, so they suit any picture.
    """
    positions = FACTORS["position"]
    accessories = [value for value in FACTORS["accessory"] if value != "none"]
    return tuple(
        prompt(
            {
                "background": background,
                "position": positions[number % len(positions)],
                "accessory": accessories[number % len(accessories)],
            },
            "a V*",
        )
        for number, background in enumerate(FACTORS["background"])
    )


def places() -> tuple[tuple[str, str], ...]:
    """Return words for each background, twice, and prompts that draw it.

    The bases have never seen an empty place, so another thing stands at a side, at times with an
    accessory. All are combinations that the models saw.
    """
    rng = random.Random("places")
    found = []
    for side in ("left", "right"):
        for background in FACTORS["background"]:
            values = draw_factors(rng, held_out=False)
            while values["background"] != background or values["position"] != side:
                values = draw_factors(rng, held_out=False)
            found.append((BACKGROUND_WORDS[background][0], prompt(values)))
    return tuple(found)


def phrases() -> tuple[str, ...]:
    """Return words for each accessory."""
    return tuple(words[0] for name, words in ACCESSORY_WORDS.items() if name != "none")
