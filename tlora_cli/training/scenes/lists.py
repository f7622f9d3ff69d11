"""Lists of places: words for a caption, and the prompt from which the base model draws the place.

Words name surroundings only, never the subject. Some places hold other things, so that the subject
is learned beside things, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from tlora_cli.foundation.bundled import bundle_of_base

Place = tuple[str, str]
"""Words, and the prompt."""

ANIMALS: tuple[Place, ...] = (
    ("in the snow", "a snowy field with pine trees, nobody in it, photo"),
    ("on the beach", "an empty sandy beach with waves, photo"),
    ("on a lawn", "an empty green lawn in a garden, photo"),
    ("in a forest", "a forest path with autumn leaves, nobody on it, photo"),
    ("in a kitchen", "the floor of a bright kitchen, nobody there, photo"),
    ("on a sofa", "an empty gray sofa in a living room, photo"),
    ("on a city street", "an empty sidewalk in a city street, photo"),
    ("at night", "an empty street at night with lamps, photo"),
    ("in a field of flowers", "a field of wild flowers, photo"),
    ("beside a red ball", "a red ball on a wooden floor, nobody there, photo"),
    ("beside a bicycle", "a bicycle that leans on a brick wall, nobody there, photo"),
    ("with a Christmas tree", "a living room with a Christmas tree, nobody there, photo"),
)
PEOPLE: tuple[Place, ...] = (
    ("in the snow", "a snowy mountain landscape, nobody in it, photo"),
    ("on the beach", "an empty sandy beach with waves, photo"),
    ("in an office", "an empty office with desks, photo"),
    ("in a library", "an empty library with shelves of books, photo"),
    ("on a city street", "an empty street in a city, photo"),
    ("at night", "an empty city street at night with neon lights, photo"),
    ("in a park", "an empty park with trees, photo"),
    ("in a kitchen", "an empty bright kitchen, photo"),
    ("in front of a gray wall", "a plain gray wall, photo"),
    ("in a cafe", "an empty cafe with cups on tables, photo"),
    ("beside a bicycle", "a bicycle in an empty street, photo"),
    ("beside a car", "a parked car in an empty street, photo"),
)
THINGS: tuple[Place, ...] = (
    ("on a wooden table", "an empty wooden table, photo"),
    ("on a white shelf", "an empty white shelf, photo"),
    ("on the beach", "an empty sandy beach with waves, photo"),
    ("in the snow", "snow on the ground with pine trees behind, photo"),
    ("on a lawn", "an empty green lawn in a garden, photo"),
    ("on a stone floor", "an empty stone floor, photo"),
    ("on a city street", "an empty sidewalk in a city street, photo"),
    ("in a forest", "a mossy forest floor, photo"),
    ("on a blue cloth", "a blue cloth on a table, photo"),
    ("beside a cup of coffee", "a cup of coffee on a table, photo"),
    ("beside a stack of books", "a stack of books on a table, photo"),
    ("with flowers", "a vase with flowers on a table, photo"),
)
LISTS = {"animals": ANIMALS, "people": PEOPLE, "things": THINGS}
"""Name, as recipes have it, -> list."""

_KINDS = {
    "animals": "animal bear bird bunny cat chicken cow dog duck elephant fish fox frog goat "
    "hamster horse kitten lion lizard monkey mouse owl panda parrot penguin pet pig puppy rabbit "
    "sheep snake squirrel tiger turtle wolf",
    "people": "baby boy child face girl lady man person toddler woman",
}


def kind_of(class_name: str) -> str:
    """Return the list that fits a class; what is neither animal nor person is a thing."""
    words = set(class_name.lower().split())
    return next((kind for kind, known in _KINDS.items() if words & set(known.split())), "things")


def list_of(places: str, class_name: str, base: str) -> Sequence[Place] | None:
    """Return the list that a recipe means; None for a folder.

    A base of a bundle knows the places of its own world only.

    Args:
        places: of the recipe: `auto`, the name of a list, or a folder.
        class_name: of the concept.
        base: name of the base model.
    """
    bundle = bundle_of_base(base)
    if bundle and places in ("auto", *LISTS):
        return bundle.places
    return LISTS.get(kind_of(class_name) if places == "auto" else places)
