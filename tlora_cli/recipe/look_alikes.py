"""Characters that look like others: what word processors and web pages put into a recipe.

A non-breaking space looks like a space, and “cat” like "cat", but YAML takes both as part of the
text. Where that can't be meant, it is told; a text in plain quotes may hold any of them.
"""

from __future__ import annotations

import re
import unicodedata

SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
INVISIBLE = "\u00ad\u200b\u2060\ufeff"
_AT_THE_ENDS = re.compile(f"^[{SPACES}{INVISIBLE}]|[{SPACES}{INVISIBLE}]$")
_WITHIN = re.compile(f"[{INVISIBLE}]")
_IN_A_LINE = re.compile(f"^[ \t]*([{SPACES}])|:([{SPACES}])|([{SPACES}])[ \t]*$|([{INVISIBLE}])")

QUOTES = {
    "\u201c": "\u201d\u201c",
    "\u201d": "\u201d",
    "\u201e": "\u201c\u201d",
    "\u201f": "\u201d",
    "\u00ab": "\u00bb",
    "\u00bb": "\u00ab",
    "\u2018": "\u2019",
    "\u201a": "\u2018\u2019",
    "\u201b": "\u2019",
}
"""Opening quote -> those that close it, in the languages that use them."""
UNMISTAKABLE = "\u201d\u00bb\u201c"
"""Closing quotes that are no apostrophe."""
DASHES = str.maketrans("\u2010\u2011\u2012\u2013\u2014\u2212", "------")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def odd_scalar(text: str, plain: bool) -> str:
    """Return what a key or a value holds that can't be meant, and what to write; or nothing.

    Args:
        text: the scalar.
        plain: whether it stands without quotes.
    """
    if found := _WITHIN.search(text):
        return f"holds {_named(found[0])}, which is invisible; delete it"
    if not plain or not text:
        return ""
    if found := _AT_THE_ENDS.search(text):
        side = "begins" if found.start() == 0 else "ends"
        return f"{side} with {_named(found[0])}, which only looks like a space; write a plain one"
    if _in_quotes(text):
        return f'{text} stands in typographic quotes; write plain ones ("), or none'
    straight = text.translate(DASHES)
    if straight != text and _NUMBER.fullmatch(straight):
        return f"{text} has a typographic dash; write {straight}"
    return ""


def _in_quotes(text: str) -> bool:
    """Whether quotes stand around a text as a whole, or around a part of a list that was cut."""
    first, last = text[0], text[-1]
    if first in QUOTES:
        closed = [place for place, one in enumerate(text) if place and one in QUOTES[first]]
        return not closed or closed[0] == len(text) - 1
    return last in UNMISTAKABLE and not any(one in QUOTES for one in text[:-1])


def odd_line(text: str, near: int) -> tuple[int, str] | None:
    """Return the line that makes YAML fail, and why, if a look-alike or a slip of writing does.

    Args:
        text: the whole text.
        near: the line where a reader gave up, counted from 1; the cause may stand before it.
    """
    lines = text.splitlines()
    for number in range(max(1, near - _BEFORE), min(near, len(lines)) + 1):
        if told := _slip(lines[number - 1]):
            return number, told
    return None


_BEFORE = 2
"""Lines before the one where a reader gives up that may be the cause."""


def _slip(line: str) -> str:
    if line.lstrip().startswith("#"):
        return ""
    if found := _IN_A_LINE.search(line):
        one = next(group for group in found.groups() if group)
        return f"{_named(one)} looks like a space and is none; write plain spaces"
    if found := re.match(r"\s*(?:- )?[\w.]+\s*(\uff1a|\ua789|\u2236)", line):
        return f"{_named(found[1])} looks like a colon and is none; write a plain one"
    if re.match(r"\s*(?:- )?[A-Za-z_]\w*:[^\s:/\\]", line):
        return "put a space behind the colon"
    if re.match(r"\s*(?:- )?[A-Za-z_][\w.]*\s*=", line):
        return "write `key: value`, with a colon"
    return ""


def _named(character: str) -> str:
    name = unicodedata.name(character, "a character").lower()
    return f"U+{ord(character):04X} ({name})"
