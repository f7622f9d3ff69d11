"""Captions in varied wording over the five factors and the private attributes.

Part of the captions also name the marking, the feature or both: "a purple cat with light dots and
wings". So words can ask for them, and a text encoder has words for what a concept is, but a caption
that says nothing of them leaves them open. Details are never named. Prompts about a concept come
from `prompt`, and name what its caller asks for.
"""

from __future__ import annotations

import random

from tlora_cli.toyworld.factors import FACTORS

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
MARKING_WORDS: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "light stripes": ("light stripes",),
    "dark stripes": ("dark stripes",),
    "light dots": ("light dots",),
    "dark dots": ("dark dots",),
    "light sash": ("a light sash",),
    "dark sash": ("a dark sash",),
}
FEATURE_WORDS: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "wings": ("wings",),
    "antennae": ("antennae",),
    "boots": ("boots",),
}
OPENINGS = ("a photo of", "a picture of", "an image of", "a drawing of", "", "there is")
PLACE_OPENINGS = ("a photo, ", "a picture, ", "an image, ", "a drawing, ", "")
"""Openings of captions without a subject."""
RARE_WORDS = ("sks", "ohwx", "zwx", "qpl", "vrk", "xjy")
"""Words without a meaning: captions drop them in at times, so that one of them in a prompt doesn't
disturb the model before it is taught what it stands for."""
RARE_SHARE = 0.1

NAMED_SHARE = 0.6
"""Share of captions that name a marking that is there; likewise a feature."""

_KEPT = {"color": 0.9, "background": 0.9, "position": 0.85, "accessory": 0.9}
"""Share of training captions that name a factor; the class is always named."""


def caption(
    values: dict[str, str],
    rng: random.Random,
    *,
    complete: bool = False,
    terse: bool = False,
) -> str:
    """Return a caption of the scene.

    Args:
        values: factor -> value, and private attribute -> value where it has one.
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
    own = {
        name: values.get(name, "none")
        for name in ("marking", "feature")
        if rng.random() < part * NAMED_SHARE
    }
    subject.extend(filter(None, [private_words(own, rng)]))
    head = f"{rng.choice(OPENINGS)} {article(subject[0])} {' '.join(subject)}".strip()
    return joint.join([head, *phrases])


def prompt(values: dict[str, str], subject: str | None = None) -> str:
    """Return the plain prompt that names every given factor, in the usual order.

    Args:
        values: factor -> value; a factor left out is not named. Marking and feature, too.
        subject: words for the subject, e.g. "V*"; default: color and class.
    """
    if subject is None:
        subject = " ".join(values[name] for name in ("color", "class") if name in values)
        subject = f"{article(subject)} {subject}"
    if own := private_words(values):
        subject = f"{subject} {own}"
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


def place_caption(background: str, rng: random.Random | None = None) -> str:
    """Return a caption of an empty place, e.g. "a photo, in the snow".

    Args:
        background: what is shown.
        rng: chooses the wording; default: the usual.
    """
    known = BACKGROUND_WORDS[background]
    if rng is None:
        return f"{PLACE_OPENINGS[0]}{known[0]}"
    return f"{rng.choice(PLACE_OPENINGS)}{rng.choice(known)}"


def private_words(values: dict[str, str], rng: random.Random | None = None) -> str:
    """Return e.g. "with light dots and wings"; empty if nothing of it is named.

    Args:
        values: may hold `marking` and `feature`; other keys are passed over.
        rng: chooses wording and order; default: the usual.
    """
    tables = (("marking", MARKING_WORDS), ("feature", FEATURE_WORDS))
    parts = []
    for name, words in tables:
        known = words[values.get(name, "none")]
        parts.append(rng.choice(known) if rng else known[0])
    parts = [part for part in parts if part]
    if rng and rng.random() < 0.3:
        parts.reverse()
    return f"with {' and '.join(parts)}" if parts else ""


def article(word: str) -> str:
    """Return a or an."""
    return "an" if word[0] in "aeiou" else "a"


def vocabulary() -> list[str]:
    """Return every word a caption can hold, sorted."""
    tables = [BACKGROUND_WORDS, POSITION_WORDS, ACCESSORY_WORDS, MARKING_WORDS, FEATURE_WORDS]
    texts = [phrase for table in tables for phrases in table.values() for phrase in phrases]
    texts += [*FACTORS["class"], *FACTORS["color"], *OPENINGS, *RARE_WORDS, "a an with and"]
    return sorted({word for text in texts for word in text.split()})
