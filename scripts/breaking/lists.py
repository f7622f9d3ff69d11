"""Mutated lists of photos, axes of sheets, studies and evaluations: what newer commands read."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

from PIL import Image

from breaking.answers import check_page, run_command
from breaking.folders import WORDS, mutate_file
from breaking.guard import Case, Make
from breaking.mutations import NUMBERS
from breaking.recipes import SNIPPETS
from tlora_cli.comparison.photo_list import read_photos
from tlora_cli.study.design import make_study
from tlora_cli.study.folders import read_folder
from tlora_cli.study.votes import QUESTIONS, Votes
from tlora_cli.tools.sheet.axes import parse_axes, parse_values

LISTS = (
    "photo,class,name\na.png,dog,rex\nb.png,cat,\ntoy:pip/1,kite,\n",
    "photo;class\na.png;dog\n~/b.png;cat\n",
    "photo\tname\n../a.png\tone\n",
)
PIECES = (
    ",", ";", "\t", '"', '""', "\n", "\r", "\r\n", "\0", "\ufeff", "~nobody/x.png", "/etc/passwd",
    "../../x", "toy:", "toy:momo/99", "photo", "class", "a" * 200_000, "=1+1", "\u202e", "\ud800",
)  # fmt: skip
AXES = ("step,scale", "seed", "method,schedule", "scale,seed")
VALUES = ("step=2,4", "scale=0.5,1", "seed=1,2", "schedule=trained,none", "method=a", "scale=")


def prepare(folder: Path, seed: int) -> Make:
    """Return what makes the cases; files go to `folder`, where a small study is made first."""
    sample = folder / "sample"
    if not sample.exists():
        _study(sample)
    case_folder = folder / "case"

    def make(number: int) -> tuple[str, Case]:
        chance = random.Random(f"{seed} list {number}")
        shutil.rmtree(case_folder, ignore_errors=True)
        if number % 4 == 0:
            case_folder.mkdir()
            file = case_folder / "photos.csv"
            file.write_bytes(
                _spoiled(chance, chance.choice(LISTS)).encode("utf-8", "surrogatepass")
            )
            return "list of photos", lambda: _photos(file)
        if number % 4 == 1:
            over = chance.choice(AXES)
            over = over if chance.random() < 0.5 else _spoiled(chance, over).replace("\ud800", "")
            words = _spoiled(chance, chance.choice(VALUES)).replace("\ud800", "")  # no one types it
            return "sheet", lambda: _sheet(over, words)
        shutil.copytree(sample, case_folder)
        kind = "study" if number % 4 == 2 else "scores-lora"
        files = [file for file in sorted((case_folder / kind).rglob("*")) if file.is_file()]
        if kind == "study" and chance.random() < 0.7:
            files = [file for file in files if file.suffix != ".png"]
        file = chance.choice(files)
        how = _value(chance, file) if file.suffix == ".json" else mutate_file(chance, file)
        if kind == "study":
            return f"study, {file.name}, {how}", lambda: _report(case_folder / "study")
        return f"evaluation, {file.name}, {how}", lambda: _new(case_folder)

    return make


# --- what is done with them -----------------------------------------------------------------------


def _photos(file: Path) -> None:
    photos = read_photos(file, "dog")
    names = [one.name for one in photos]
    assert photos and len(set(names)) == len(names)
    assert all("/" not in name and name not in (".", "..") for name in names), names


def _sheet(over: str, words: str) -> None:
    axes = parse_axes(over)
    assert set(parse_values([words], axes)) <= set(axes)


def _report(study: Path) -> None:
    """Run `tlora study report`."""
    status = run_command("study", "report", study)
    if status == 0:
        check_page(study / "report.html")


def _new(folder: Path) -> None:
    """Run `tlora study new` with an evaluation that is damaged."""
    given = [f"{name}={folder / f'scores-{name}'}" for name in ("tlora", "lora")]
    status = run_command("study", "new", *given, "--output", folder / "new")
    assert (status == 0) == (folder / "new" / "study.json").exists()


# --- files to begin with, and changes -------------------------------------------------------------


def _study(folder: Path) -> None:
    """Write two evaluations, and a study of them with one rater's answers."""
    drawn = []
    for method in ("tlora", "lora"):
        place = folder / f"scores-{method}"
        rows, asked = [], []
        for number, prompt in enumerate(("a V* at sea", "a V* on a hill")):
            name = f"pictures/{number}.png"
            (place / "pictures").mkdir(parents=True, exist_ok=True)
            Image.effect_noise((16, 16), 20 + number).convert("RGB").save(place / name)
            rows.append({"group": "suite", "prompt": prompt, "file": name})
            asked.append(["suite", prompt, 0])
        Image.new("RGB", (16, 16), "red").save(place / "photo.png")
        with (place / "pictures.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["group", "prompt", "file"])
            writer.writeheader()
            writer.writerows(rows)
        learned = {"method": method, "class": "dog", "name": "rex", "reference": ["photo.png"]}
        text = json.dumps({"results": {"S": 0.5}, "pictures": asked, "learned": learned})
        (place / "results.json").write_text(text, "utf-8")
        drawn.append(read_folder(f"{method}={place}", {}))
    study = make_study(drawn, folder / "study", 4, seed=0)
    votes = Votes(study)
    rater = votes.rater("Ann")
    trials = votes.trials(rater)
    votes.vote_all(
        rater, [(one.position, name, "left", 2.0) for one in trials for name in QUESTIONS]
    )


def _spoiled(chance: random.Random, text: str) -> str:
    for _ in range(chance.randrange(4)):
        piece = chance.choice((*PIECES, *SNIPPETS, *map(str, NUMBERS), *WORDS))
        place = chance.randrange(len(text) + 1)
        text = text[:place] + piece + text[place + chance.choice((0, 0, 1, 5)) :]
    return text


def _value(chance: random.Random, file: Path) -> str:
    """Put another value somewhere into a JSON file, or spoil it as a file."""
    if chance.random() < 0.25:
        return mutate_file(chance, file)
    values = json.loads(file.read_bytes())
    inner = values
    while True:
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        key = chance.choice(keys)
        if isinstance(inner[key], (dict, list)) and inner[key] and chance.random() < 0.8:
            inner = inner[key]
            continue
        other = (*NUMBERS, *WORDS, None, [], {}, [1], {"a": 1}, True, 0, 1, -1, 99, "1", 0.5)
        inner[key] = chance.choice(other)
        break
    file.write_text(json.dumps(values), "utf-8")
    return "value"
