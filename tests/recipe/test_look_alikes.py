"""Characters that look like others: the message names the line and the character.

Before, a non-breaking space was blamed on the line behind it, “cat” was taken with its quotes, and
a tab behind a number was refused though YAML allows it.
"""

from __future__ import annotations

import pytest

from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.reading import dump_recipe, parse_recipe

TEXT = """\
family: sdxl
base: toy-sdxl
concept:
  images: thing.png
  class: cat
train:
  steps: 4
  seed: 1
output:
  dir: out
"""

WRONG: dict[str, tuple[str, str, str]] = {
    "indented by it": ("  steps: 4", "\u00a0\u00a0steps: 4", "line 7: .*U\\+00A0 \\(no-break sp"),
    "half indented by it": ("  steps: 4", " \u00a0steps: 4", "line 7: .*U\\+00A0"),
    "behind the colon": ("steps: 4", "steps:\u00a04", "line 7: .*looks like a space and is none"),
    "behind a section": ("train:", "train:\u00a0", "line 6: .*U\\+00A0"),
    "behind a number": ("steps: 4", "steps: 4\u00a0", "line 7: train.steps: ends with U\\+00A0"),
    "behind a text": ("class: cat", "class: cat\u202f", "line 5: concept.class: ends with"),
    "before a text": ("class: cat", "class: \u2003cat", "line 5: concept.class: begins with"),
    "of East Asia": ("steps: 4", "steps:\u30004", "line 7: .*U\\+3000 \\(ideographic space\\)"),
    "invisible in a text": ("cat", "c\u200bat", "line 5: concept.class: holds U\\+200B"),
    "invisible in quotes": ("cat", '"cat\ufeff"', "line 5: concept.class: holds U\\+FEFF"),
    "invisible in a key": ("steps", "\u200bsteps", "line 7: train: a key holds U\\+200B"),
    "a mark of the file's start": ("train:", "\ufefftrain:", "line 6: a key holds U\\+FEFF"),
    "English quotes": ("cat", "\u201ccat\u201d", "line 5: concept.class: .*typographic quotes"),
    "German quotes": ("cat", "\u201ecat\u201c", "line 5: concept.class: .*typographic quotes"),
    "French quotes": ("cat", "\u00abcat\u00bb", "line 5: concept.class: .*typographic quotes"),
    "single quotes": ("cat", "\u2018cat\u2019", "line 5: concept.class: .*typographic quotes"),
    "half of them": ("cat", "cat\u201d", "line 5: concept.class: .*typographic quotes"),
    "quotes in a list": (
        "thing.png", "[\u201ca.png\u201d, b.png]", "line 4: concept.images\\[0\\]: .*typographic"
    ),
    "a comma within them": (
        "thing.png", "[\u201ca, b.png\u201d]", "line 4: concept.images\\[0\\]: \u201ca stands in"
    ),
    "quotes around a key": ("class:", "\u201cclass\u201d:", "line 5: concept: a key \u201cclass"),
    "a long dash": ("seed: 1", "seed: \u20131", "line 8: train.seed: .* typographic dash"),
    "a dash in an exponent": (
        "seed: 1", "optimizer: {lr: 1e\u20134}", "line 8: .*has a typographic dash; write 1e-4"
    ),
    "a decimal comma": ("seed: 1", "optimizer: {lr: 0,0001}", "decimals stand behind a point"),
    "another colon": ("steps: 4", "steps\uff1a4", "line 7: .*looks like a colon and is none"),
    "no space": ("steps: 4", "steps:4", "line 7: .*put a space behind the colon"),
    "an equals sign": ("steps: 4", "steps = 4", "line 7: .*with a colon"),
    "a Windows path": (
        "thing.png", '"C:\\Users\\me\\thing.png"', "line 4: .*write a Windows path in single quotes"
    ),
    "another one": ("thing.png", '"D:\\my\\thing.png"', "line 4: .*Windows path in single quotes"),
    "one that reads": ("thing.png", '"C:\\new\\thing.png"', "line 4: .*in single quotes, or"),
    "indented by a tab": ("  steps: 4", "\tsteps: 4", "line 7: .*indent with spaces, not tabs"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "told"), WRONG.values(), ids=WRONG)
def test_the_message_leads_to_the_cause(old: str, new: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_recipe(TEXT.replace(old, new, 1))


RIGHT = {
    "a tab behind a number": ("steps: 4", "steps: 4\t"),
    "tabs and spaces": ("steps: 4", "steps: 4 \t \t"),
    "a tab behind the colon": ("steps: 4", "steps:\t4"),
    "a tab before a remark": ("steps: 4", "steps: 4\t# four"),
    "a tab before a remark alone": ("train:", "\t# now\ntrain:"),
    "a line of a tab": ("train:", "\t\ntrain:"),
    "a tab in a list": ("images: thing.png", "images: [thing.png]\t"),
    "Windows lines": ("\n", "\r\n"),
    "a mark at the start": ("family", "\ufefffamily"),
}


@pytest.mark.parametrize(("old", "new"), RIGHT.values(), ids=RIGHT)
def test_what_yaml_allows_is_read(old: str, new: str) -> None:
    read = parse_recipe(TEXT.replace(old, new).removeprefix("\ufeff"))
    wanted = parse_recipe(TEXT).model_dump()
    if "list" in new or "[" in new:
        wanted["concept"]["images"] = ["thing.png"]
    assert read.model_dump() == wanted


TEXTS = [
    "the dogs\u2019",
    "a \u201cgood\u201d dog",
    "\u201cRex\u201d, the dog",
    "\u201cRex\u201d says \u201cwoof\u201d",
    "chien\u00a0noir",
    "caf\u00e9 \u2013 bar",
    "\u0646\u0645\u06cc\u200c\u062e",
    "it\u2019s",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_may_hold_them(text: str) -> None:
    assert parse_recipe(TEXT.replace("cat", text)).concept.class_name == text


@pytest.mark.parametrize("text", ["\u201ccat\u201d", "cat\u00a0", "\u20134"])
def test_plain_quotes_mean_it(text: str) -> None:
    assert parse_recipe(TEXT.replace("cat", f'"{text}"')).concept.class_name == text


def test_a_run_that_began_with_them_can_be_read() -> None:
    odd = TEXT.replace("cat", "\u201ccat\u201d").replace("images: ", "images: $NOT_SET/")
    recipe = parse_recipe(odd, began=True)
    assert recipe.concept.class_name == "\u201ccat\u201d"
    assert recipe.concept.images == "$NOT_SET/thing.png"


def test_what_a_run_keeps_reads_back() -> None:
    recipe = parse_recipe(
        TEXT.replace("cat", '"\u201ccat\u201d"').replace("dir: out", 'dir: "\u00a0a"')
    )
    assert parse_recipe(dump_recipe(recipe)) == recipe


def test_set_is_looked_at_too() -> None:
    with pytest.raises(UserError, match=r"--set .*typographic quotes"):
        parse_recipe(TEXT, overrides=["concept.class=\u201cdog\u201d"])
