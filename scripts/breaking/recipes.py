"""Mutated recipes and grids: what people mistype, and what strangers make up."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from breaking.answers import run_command
from breaking.guard import Case, Make
from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan
from tlora_cli.families import FAMILIES
from tlora_cli.recipe.reading import dump_recipe, load_recipe, parse_recipe

ROOT = Path(__file__).parents[2]

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**99, 10**4000, 1e308, -0.0,
    float("nan"), float("inf"), 1e-320, "", " ", "0", "64", "1e-4", "yes", "null", "~", "=", "<<",
    "../../outside", "/etc/passwd", "~root/x", "a/../../b", "x" * 70_000, "\u0000", "\ud800",
    "\u202e", "é", "😀", "\x1b[31mred", "V*", "{placeholder}", "{class", "}", "{0.__class__}", "%s",
    "toy:pip/1", "toy:", "toy:../x", "nf4", "sdxl", "flux", "tlora", "oft", "a{99999999999999999}",
    "(" * 3000, "(a+)+$", "[[a]", "(?P<x>", "\\", "$(touch trap)", "`touch trap`", [], {}, [[]],
    [None], ["a"] * 500, {"a": {"b": {"c": 1}}}, [[0, 4], [900, 2]], [0.9, 0.999], [1, "x"],
    {"__class__": "x"}, {"model": "m"}, {1: 2}, b"bytes",
)  # fmt: skip
"""Values that stand in place of another."""

SNIPPETS = (
    "&a", "*a", "<<: *a", "!!python/object/apply:os.system ['touch trap']",
    "!!python/name:os.system", "!!python/object/new:os.system [touch trap]", "!!binary aGVsbG8=",
    "!!set {a}", "!!omap [a: 1]", "!!timestamp 2001-01-01", "!!int x", "!!float .nan", "!local x",
    "!<tag:x> y", "%YAML 1.1\n---\n", "%TAG ! tag:x,2000:\n", "---\n", "...\n", "\t", "? ", ": ",
    "- ", "|\n", ">-\n", "'", '"', "#", "{", "}", "[", "]", ",", "\u0085", "\u2028", "\ufeff",
    "\x00", "\x07", '"\\ud800": 1\n', '"\\U00110000"', '"\\xff"', "0x", "0o8", "1_000", "1:30:00",
    "9" * 5000, "1e999", ".inf", "\r", "train:\n", "train: {}\n", "adapter.rank: 4\n",
    "family: sdxl\n", "output: {dir: ../x}\n",
)  # fmt: skip
"""Pieces that are put into the text."""


def prepare(folder: Path, seed: int) -> Make:
    """Return what makes the cases; files go to `folder`."""
    texts = [
        *(file.read_text("utf-8") for file in sorted((ROOT / "configs").glob("*.yaml"))),
        *(dump_recipe(parse_recipe(text)) for text in SMALL),
    ]
    recipes = [text for text in texts if "\ngrid:" not in text]
    grids = [text for text in texts if "\ngrid:" in text]
    file = folder / "mutated.yaml"

    def make(number: int) -> tuple[str, Case]:
        chance = random.Random(f"{seed} recipe {number}")
        of_grid = number % 10 == 9
        name, data = _mutated(chance, grids if of_grid else recipes)
        file.write_bytes(data)
        overrides = _overrides(chance)
        cases: tuple[tuple[str, Case], ...] = (
            ("grid", lambda: _read_grid(file)),
            ("command", lambda: _check(file)),
            ("recipe", lambda: _read(file, overrides)),
        )
        called, case = cases[0 if of_grid else 1 if number % 5 == 4 else 2]
        return f"{called}, {name}", case

    return make


SMALL = (
    *(
        f"family: {name}\nbase: b\nrecipe: photo\nconcept: {{images: a.png, class: dog}}\n"
        "train: {steps: 9}\noutput: {dir: run}\n"
        for name in FAMILIES
    ),
    "family: sdxl\nbase: b\nconcept: {images: a.png, class: dog}\noutput: {dir: run}\n",
    "family: flux\nbase: b\nconcept: {images: [a, b], masks: [a, b], class: x, prior: {count: 2}}\n"
    "adapter: {schedule: {kind: piecewise, points: [[0, 4], [9, 2]]}, rank: 4, min_rank: 2}\n"
    "train: {preview: {prompts: [a V*]}, optimizer: {name: adamw}}\noutput: {dir: run}\n",
)


def _read(file: Path, overrides: list[str]) -> None:
    """Load a recipe; what loads must come back from its own text."""
    recipe = load_recipe(file, overrides)
    assert parse_recipe(dump_recipe(recipe)) == recipe, "the recipe is another after writing it"


def _check(file: Path) -> None:
    """Run `tlora recipe check`."""
    run_command("recipe", "check", file)


def _read_grid(file: Path) -> None:
    """Plan a comparison; no cell may lie outside its folder."""
    plan = make_plan(load_grid(file))
    top = plan.folder.resolve()
    for cell in plan.cells:
        assert plan.cell_folder(cell).resolve().is_relative_to(top), cell.name


def _overrides(chance: random.Random) -> list[str]:
    if chance.random() < 0.8:
        return []
    keys = (
        "train.steps",
        "adapter",
        "base.model",
        "a.b.c",
        "",
        "=",
        "train..x",
        "concept.images[0]",
    )
    value = chance.choice((*SNIPPETS, *(str(value)[:5000] for value in VALUES)))
    return [f"{chance.choice(keys)}{chance.choice(('=', '', ' = '))}{value}"]


def _mutated(chance: random.Random, texts: list[str]) -> tuple[str, bytes]:
    """Return a mutated recipe and what was done to it."""
    if chance.random() < 0.05:
        name = chance.choice(list(MONSTERS))
        return name, MONSTERS[name](chance)
    text, done = chance.choice(texts), []
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        change = chance.choice((_value, _value, _value, _key, _snippet, _lines, _characters))
        text = change(chance, text)
        done.append(change.__name__[1:])
    data = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.05:
        place = chance.randrange(len(data) + 1)
        data = data[:place] + chance.randbytes(chance.randrange(1, 9)) + data[place:]
        done.append("bytes")
    return "+".join(done), data


def _paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    pairs = data.items() if isinstance(data, dict) else enumerate(data or ())
    if isinstance(data, dict | list):
        for key, value in pairs:
            found += _paths(value, (*path, key))
    return found


def _at_a_path(chance: random.Random, text: str, change: Callable[[Any, Any], None]) -> str:
    """Change the section around a random value, and write it as YAML or as JSON."""
    try:
        data = yaml.safe_load(text)
        path = chance.choice(_paths(data))
    except (yaml.YAMLError, IndexError, ValueError, TypeError, RecursionError):
        return text
    except AttributeError:  # PyYAML's own answer to a `!!timestamp` that is none
        return text
    section = data = deepcopy(data)
    for key in path[:-1]:
        section = section[key]
    change(section, path[-1])
    try:
        if chance.random() < 0.3:
            return json.dumps(data, default=repr)
        return yaml.dump(data, sort_keys=False, allow_unicode=chance.random() < 0.5)
    except (ValueError, TypeError, yaml.YAMLError):  # no such text
        return text


def _value(chance: random.Random, text: str) -> str:
    def change(section: Any, key: Any) -> None:
        section[key] = chance.choice(VALUES)

    return _at_a_path(chance, text, change)


def _key(chance: random.Random, text: str) -> str:
    """Delete a key, rename it, or put it elsewhere."""

    def change(section: Any, key: Any) -> None:
        value = section.pop(key)
        if isinstance(section, dict) and chance.random() < 0.8:
            new = chance.choice(
                (f"{key}s", "<<", str(key).upper(), 1, None, "x.y", "\ud800", "seed")
            )
            section[new] = {key: value} if chance.random() < 0.3 else value

    return _at_a_path(chance, text, change)


def _snippet(chance: random.Random, text: str) -> str:
    places = [0, len(text), *(n + 1 for n, c in enumerate(text) if c in ":\n -")]
    place = chance.choice(places)
    return (
        f"{text[:place]}{chance.choice((' ', '', chr(10)))}{chance.choice(SNIPPETS)}{text[place:]}"
    )


def _lines(chance: random.Random, text: str) -> str:
    """Repeat, drop, swap or indent lines, or cut the text."""
    lines = text.splitlines(keepends=True)
    if not lines:
        return text
    place, what = chance.randrange(len(lines)), chance.randrange(5)
    if what == 0:
        lines.insert(chance.randrange(len(lines)), lines[place])
    elif what == 1:
        del lines[place]
    elif what == 2:
        lines[place] = "  " + lines[place]
    elif what == 3:
        lines[place] = lines[place].lstrip()
    else:
        return text[: chance.randrange(len(text))]
    return "".join(lines)


def _characters(chance: random.Random, text: str) -> str:
    special = (0, 9, 10, 34, 38, 42, 58, 91, 123, 0xD800, 0x1F600)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(text) + 1)
        new = chr(chance.choice((*special, chance.randrange(0x250))))
        text = text[:place] + new + text[place + 1 :]
    return text


def _bomb(chance: random.Random) -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for n in range(1, chance.randrange(5, 60)):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]")
    return "\n".join(lines).encode()


MONSTERS: dict[str, Callable[[random.Random], bytes]] = {
    "alias bomb": _bomb,
    "merge bomb": lambda c: _bomb(c).replace(b"[x", b"{x: 1, y: [x").replace(b"x]", b"x]}"),
    "alias of itself": lambda c: b"a: &a [*a]\n",
    "alias of itself as key": lambda c: b"&a ? *a\n: 1\n",
    "deep lists": lambda c: b"[" * c.choice((10, 21, 1000, 400_000)),
    "deep sections": lambda c: b"{a: " * c.choice((19, 21, 1000, 200_000)),
    "deep blocks": lambda c: b"".join(b" " * n + b"a:\n" for n in range(c.choice((19, 25, 1000)))),
    "deep sequences": lambda c: b"- " * c.choice((19, 25, 1000, 400_000)),
    "many values": lambda c: b"a:\n" + b"- 1\n" * c.choice((9_000, 11_000, 240_000)),
    "many keys": lambda c: b"\n".join(b"k%d: 1" % n for n in range(c.choice((4_000, 60_000)))),
    "many documents": lambda c: b"---\na: 1\n" * 100_000,
    "many questions": lambda c: b"? " * 300_000,
    "many anchors": lambda c: b"".join(b"- &a%d x\n" % n for n in range(9_000)),
    "many tags": lambda c: b"!!str " * 150_000,
    "many quotes": lambda c: b"'" * 900_001,
    "many escapes": lambda c: b'a: "' + b"\\u0041" * 150_000 + b'"',
    "many folds": lambda c: b'a: "' + b"x\n\n" * 300_000 + b'"',
    "many words": lambda c: b"a: " + b"x " * 480_000,
    "many blanks": lambda c: b"a: x" + b" " * 900_000 + b"y",
    "many breaks": lambda c: b"\n" * 900_000 + b"a: 1",
    "many comments": lambda c: b"#\n" * 450_000 + b"a: 1",
    "a long key": lambda c: b"a" * 900_000 + b": 1",
    "a long name": lambda c: b"family: sdxl\nbase: " + b"a" * 900_000,
    "a long number": lambda c: b"seed: " + b"9" * 900_000,
    "a long block": lambda c: b"a: |\n" + b"  x\n" * 200_000,
    "a large file": lambda c: b"x" * 3_000_000,
    "random bytes": lambda c: c.randbytes(c.randrange(1, 5_000)),
    "UTF-16": lambda c: SMALL[0].encode("utf-16"),
    "UTF-16 without a mark": lambda c: SMALL[0].encode("utf-16-be"),
    "UTF-8 cut": lambda c: SMALL[0].encode() + b"# \xf0\x9f",
    "nothing": lambda c: c.choice((b"", b"\n", b"# x", b"---", b"null", b"\xef\xbb\xbf")),
    "no mapping": lambda c: c.choice((b"3", b"[1]", b"text", b"!!python/none x", b"*a", b"&a")),
}
"""Whole files made to hurt."""
