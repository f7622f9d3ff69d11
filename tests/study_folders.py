"""Evaluation folders for studies, and raters who answer by rule."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tlora_cli.study.design import Study, make_study
from tlora_cli.study.folders import read_folder
from tlora_cli.study.trials import Trial
from tlora_cli.study.votes import QUESTIONS, Votes

PROMPTS = ("a V* in the snow", "a V* <b>on</b> a beach", "a V* wearing a hat")
Answer = Callable[[Trial, str, random.Random], str]
"""(what is shown, question, random numbers of the rater) -> answer."""


def evaluation(
    folder: Path,
    method: str,
    concept: str = "rex",
    count: int = 2,
    prompts: Sequence[str] = PROMPTS,
    **learned: Any,
) -> Path:
    """Write what `tlora evaluate` leaves, with pictures of one color each."""
    place = folder / f"{method}-{concept}"
    draw = random.Random(f"{method} {concept}")
    rows, asked = [], []
    for number, prompt in enumerate(prompts):
        for seed in range(count):
            name = f"pictures/suite/{number:03d}_seed{seed}.png"
            _picture(place / name, draw)
            rows.append({"group": "suite", "prompt": prompt, "file": name})
            asked.append(["suite", prompt, seed])
    _picture(place / "reference" / "1.png", draw)
    rows.append({"group": "free", "prompt": "a lighthouse", "file": "pictures/free/000_seed0.png"})
    with (place / "pictures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["group", "prompt", "file"])
        writer.writeheader()
        writer.writerows(rows)
    said = {"method": method, "class": "dog", "name": concept, "reference": ["reference/1.png"]}
    results = {"results": {"S": 0.5}, "pictures": asked, "learned": {**said, **learned}}
    (place / "results.json").write_text(json.dumps(results))
    return place


def _picture(path: Path, draw: random.Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 24), tuple(draw.randrange(256) for _ in range(3))).save(path)


def small_study(
    folder: Path,
    methods: Sequence[str] = ("tlora", "lora"),
    concepts: int = 2,
    pairs: int = 12,
    **how: Any,
) -> Study:
    """Make a study of small evaluations."""
    places = [
        evaluation(folder / "scores", method, f"c{number}", **how)
        for number in range(concepts)
        for method in methods
    ]
    drawn = [read_folder(str(place), {}) for place in places]
    return make_study(drawn, folder / "study", pairs, seed=0)


def answer_all(study: Study, name: str, answer: Answer, seconds: float = 3.0) -> None:
    """Have a rater answer everything."""
    votes, draw = Votes(study), random.Random(name)
    rater = votes.rater(name)
    votes.vote_all(
        rater,
        [
            (trial.position, question, answer(trial, question, draw), seconds)
            for trial in votes.trials(rater)
            for question in QUESTIONS
        ],
    )
