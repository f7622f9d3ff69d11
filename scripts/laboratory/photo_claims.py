"""Claims about `recipe: photo`, written down before its grids were run."""

from __future__ import annotations

from laboratory.results import Pick
from laboratory.verdicts import LIKENESS, Claim, Contrast

SOURCE = "not in the paper"


def _photo(method: str) -> Pick:
    return Pick(method, variant="photo")


def _variant(name: str) -> Pick:
    return Pick("tlora", variant=name)


PHOTO, PAPER = _variant("photo"), _variant("paper")
WORD = Pick("textual_inversion", variant="word_alone")
METHODS = ("tlora", "lora", "ortho_lora", "vanilla_tlora")
LEFT_OUT = {
    "without the word": "no_word",
    "without scenes": "no_scenes",
    "without the untouched photo": "no_untouched",
    "without phrases": "no_phrases",
    "without the reach": "no_reach",
    "with even timesteps": "even",
}
FLUX_METHODS = {"Vanilla T-LoRA": "vanilla_tlora", "LoRA": "lora"}
ADDED = {"paper with scenes": "add_scenes", "paper with the reach": "add_reach"}

PHOTO_CLAIMS = (
    Claim(
        "photo",
        "photo",
        "`recipe: photo` does what a person with one photograph wants",
        SOURCE,
        "On concepts that played no part in choosing it, more pictures are right in all that was "
        "asked and all that is private (S\\*) than with the published recipe after 200 or 400 "
        "steps, with T-LoRA and with LoRA.",
        {
            "T-LoRA, photo": PHOTO,
            "LoRA, photo": _photo("lora"),
            "T-LoRA, paper": PAPER,
            "T-LoRA, paper, 200 steps": _variant("paper200"),
            "LoRA, paper": Pick("lora", variant="paper"),
        },
        (
            Contrast("T-LoRA", "S*", PHOTO, PAPER, 1),
            Contrast("T-LoRA, 200 steps of paper", "S*", PHOTO, _variant("paper200"), 1),
            Contrast("LoRA", "S*", _photo("lora"), Pick("lora", variant="paper"), 1),
        ),
        curve=None,
    ),
    Claim(
        "photo-timestep",
        "photo",
        "The mask of ranks by timestep earns its place under `recipe: photo`",
        SOURCE,
        "Under the same recipe, T-LoRA is better than LoRA and Ortho-LoRA, and Vanilla T-LoRA "
        "better than LoRA, in S\\*.",
        {
            **{method: _photo(method) for method in METHODS},
            "tlora, no word": _variant("no_word"),
            "lora, no word": Pick("lora", variant="no_word"),
        },
        (
            Contrast("T-LoRA against LoRA", "S*", PHOTO, _photo("lora"), 1),
            Contrast("T-LoRA against Ortho-LoRA", "S*", PHOTO, _photo("ortho_lora"), 1),
            Contrast("Vanilla T-LoRA against LoRA", "S*", _photo("vanilla_tlora"),
                     _photo("lora"), 1),
            Contrast("T-LoRA against LoRA, no word", "S*", _variant("no_word"),
                     Pick("lora", variant="no_word"), 1),
        ),
        curve=None,
    ),
    Claim(
        "photo-word",
        "photo",
        "A word learned first makes `recipe: photo` better",
        SOURCE,
        "With a word that is learned before the weights, S\\* and TS\\* are higher than with the "
        "weights alone, with T-LoRA and with LoRA.",
        {
            "T-LoRA, photo": PHOTO,
            "T-LoRA, no word": _variant("no_word"),
            "LoRA, photo": _photo("lora"),
            "LoRA, no word": Pick("lora", variant="no_word"),
        },
        [
            Contrast(f"{name}, {metric}", metric, one, other, 1)
            for name, one, other in (
                ("T-LoRA", PHOTO, _variant("no_word")),
                ("LoRA", _photo("lora"), Pick("lora", variant="no_word")),
            )
            for metric in ("S*", "TS*")
        ],
        curve=None,
    ),
    Claim(
        "photo-weights",
        "photo",
        "The weights add to the word",
        SOURCE,
        "T-LoRA's weights after the word bring more S\\* and more likeness than the word alone.",
        {"T-LoRA, photo": PHOTO, "the word alone": WORD},
        [Contrast(metric, metric, PHOTO, WORD, 1) for metric in ("S*", LIKENESS)],
        curve=None,
    ),
    Claim(
        "photo-parts",
        "photo_parts",
        "Each part of `recipe: photo` adds to it",
        SOURCE,
        "S\\* falls when a part is left out, and rises when one is added to the published recipe.",
        {
            "photo": PHOTO,
            **{name: _variant(variant) for name, variant in LEFT_OUT.items()},
            "paper": PAPER,
            **{name: _variant(variant) for name, variant in ADDED.items()},
        },
        [
            *(Contrast(name, "S*", PHOTO, _variant(variant), 1)
              for name, variant in LEFT_OUT.items()),
            *(Contrast(name, "S*", _variant(variant), PAPER, 1)
              for name, variant in ADDED.items()),
        ],
        curve=None,
    ),
    Claim(
        "photo-more",
        "photo_parts",
        "What `recipe: photo` leaves out adds nothing",
        SOURCE,
        "Twice the steps, a quarter of the rank at the noisiest timestep instead of half, and "
        "holding the class to the base's answers (`train.preserve`) bring no more S\\* and no more "
        "likeness.",
        {
            "photo": PHOTO,
            "twice the steps": _variant("twice"),
            "a quarter of the rank": _variant("quarter"),
            "preserve": _variant("preserve"),
        },
        [
            Contrast(f"{name}, {metric}", metric, PHOTO, _variant(variant), 1)
            for name, variant in (("twice the steps", "twice"), ("a quarter", "quarter"),
                                  ("preserve", "preserve"))
            for metric in ("S*", LIKENESS)
        ],
        curve=None,
    ),
    Claim(
        "photo-flux",
        "photo_flux",
        "On toy-flux, too, `recipe: photo` does what a person with one photograph wants",
        SOURCE,
        "More pictures are right in all that was asked and all that is private (S\\*) than with "
        "the published recipe, with the schedule alone (the family's own method) and with LoRA; "
        "and under `photo` the schedule alone is better than LoRA in S\\* and TS\\*.",
        {
            f"{name}, {variant}": Pick(method, variant=variant)
            for name, method in FLUX_METHODS.items()
            for variant in ("photo", "paper")
        },
        [
            *(Contrast(name, "S*", Pick(method, variant="photo"), Pick(method, variant="paper"), 1)
              for name, method in FLUX_METHODS.items()),
            *(Contrast(f"the schedule against LoRA, {metric}", metric,
                       Pick("vanilla_tlora", variant="photo"), _photo("lora"), 1)
              for metric in ("S*", "TS*")),
        ],
        curve=None,
    ),
)  # fmt: skip
