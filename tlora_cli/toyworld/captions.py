"""Captions in varied wording over the five factors; never a word about private attributes."""

from __future__ import annotations

import random

BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "on green grass", "in the meadow"),
    "beach": ("on the beach", "at the beach", "on a sandy beach"),
    "night sky": ("under the night sky", "at night under the stars", "in front of the night sky"),
    "snow": ("in the snow", "in a snowy landscape", "on fresh snow"),
    "brick wall": ("in front of a brick wall", "against a brick wall", "before a wall of bricks"),
    "underwater": ("underwater", "deep underwater", "under water in the sea"),
    "city": ("in the city", "in front of city towers", "on a city street"),
    "tiles": ("on pink tiles", "in front of a tiled wall", "against pink tiles"),
}
POSITION_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "at the left of the picture"),
    "center": ("in the center", "in the middle", "at the center of the picture"),
    "right": ("on the right", "on the right side", "at the right of the picture"),
}
ACCESSORY_WORDS: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "hat": ("wearing a hat", "with a black hat", "with a top hat"),
    "crown": ("wearing a crown", "with a golden crown", "with a crown"),
    "balloon": ("holding a balloon", "with a balloon", "with a red balloon on a string"),
    "flag": ("holding a flag", "with a flag", "with a flag on a pole"),
}
OPENINGS = ("a photo of", "a picture of", "an image of", "a drawing of", "", "there is")
RARE_WORDS = ("sks", "ohwx", "zwx", "qpl", "vrk", "xjy")
"""Words without a meaning: captions drop them in at times, so that one of them in a prompt doesn't
disturb the model before it is taught what it stands for."""
RARE_SHARE = 0.1

_KEPT = {"color": 0.9, "background": 0.9, "position": 0.85, "accessory": 0.9}
"""Share of training captions that name a factor; the class is always named."""


def caption(
    values: dict[str, str], rng: random.Random, *, complete: bool = False, terse: bool = False
) -> str:
    """Return a caption of the scene.

    Args:
        values: factor -> value.
        rng: chooses the wording, the order, and what is left out.
        complete: name every factor, and drop in no rare word.
        terse: name a quarter of the factors beside the class.
    """
    part = 0.25 if terse else 1.0
    kept = {name for name, share in _KEPT.items() if complete or rng.random() < part * share}
    subject = [rng.choice(RARE_WORDS)] if not complete and rng.random() < RARE_SHARE else []
    subject.append(values["class"])
    if "color" in kept:
        subject.insert(0 if rng.random() < 0.5 else len(subject) - 1, values["color"])
    phrases = [
        rng.choice(words[values[name]])
        for name, words in (
            ("accessory", ACCESSORY_WORDS),
            ("background", BACKGROUND_WORDS),
            ("position", POSITION_WORDS),
        )
        if name in kept
    ]
    phrases = [phrase for phrase in phrases if phrase]
    rng.shuffle(phrases)
    joint = rng.choice((", ", " "))
    head = f"{rng.choice(OPENINGS)} {article(subject[0])} {' '.join(subject)}".strip()
    return joint.join([head, *phrases])


def prompt(values: dict[str, str], subject: str | None = None) -> str:
    """Return the plain prompt that names every given factor, in the usual order.

    Args:
        values: factor -> value; a factor left out is not named.
        subject: words for the subject, e.g. "V*"; default: color and class.
    """
    if subject is None:
        subject = " ".join(values[name] for name in ("color", "class") if name in values)
        subject = f"{article(subject)} {subject}"
    phrases = [
        words[values[name]][0]
        for name, words in (
            ("accessory", ACCESSORY_WORDS),
            ("background", BACKGROUND_WORDS),
            ("position", POSITION_WORDS),
        )
        if name in values and words[values[name]][0]
    ]
    return ", ".join([f"a photo of {subject}", *phrases])


def article(word: str) -> str:
    """Return a or an."""
    return "an" if word[0] in "aeiou" else "a"


def vocabulary() -> list[str]:
    """Return every word a caption can hold, sorted."""
    from tlora_cli.toyworld.factors import FACTORS

    tables = (BACKGROUND_WORDS, POSITION_WORDS, ACCESSORY_WORDS)
    texts = [phrase for table in tables for phrases in table.values() for phrase in phrases]
    texts += [*FACTORS["class"], *FACTORS["color"], *OPENINGS, *RARE_WORDS, "a an"]
    return sorted({word for text in texts for word in text.split()})
