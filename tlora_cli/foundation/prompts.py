"""Prompts: the words for the concept, filled in; and marks that nothing fills in, found."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tlora_cli.foundation.errors import UserError

CONCEPT_MARKS = ("V*", "{concept}", "{0}")
"""Words for the concept in a prompt; {0} as in lists of DreamBooth and in the published code."""
PLACEHOLDER, CLASS = "{placeholder}", "{class}"
"""Marks for its two parts."""

_MARK = re.compile("|".join(map(re.escape, (*CONCEPT_MARKS, PLACEHOLDER, CLASS))))
_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")
_WEIGHT = re.compile(r"\([^()]+:\s*\d*\.?\d+\)")
_ODD = re.compile(
    r"{[^{}]*}?|}"  # braces that nothing fills in
    r"|<[^<>\s/]{2,}>"  # <sks>, as textual inversion writes it
    r"|\[V\d?\]\*?"  # [V], as the DreamBooth paper writes it
    r"|(?<![\w*])(?!V\*)[A-Za-z]\d*\*"  # v*, S*, V1*
    r"|V\s*\\\*|V\s+\*|V[\u2217\uFF0A\u2731]"  # V\* of Markdown, V *, other stars
)
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u2060\ufeff]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
"""Characters without width; between letters that aren't Latin, joiners have a meaning."""
_SPACES = re.compile(r"\s+")


def concept_words(placeholder: str | None, class_name: str | None) -> str:
    """Return the words for a concept in prompts, "sks dog"; what is not known is left out."""
    return " ".join(word for word in (placeholder, class_name) if word)


def training_prompt(template: str, placeholder: str, class_name: str) -> str:
    """Fill {placeholder}, {class} and the concept's marks: "a photo of sks dog"."""
    parts = {PLACEHOLDER: placeholder, CLASS: class_name}
    if not any(mark in placeholder for mark in CONCEPT_MARKS):  # then it is the word itself
        parts |= dict.fromkeys(CONCEPT_MARKS, concept_words(placeholder, class_name))
    return _MARK.sub(lambda found: parts.get(found[0], found[0]), template)


def sampling_prompt(
    prompt: str, concept: str | None, placeholder: str | None = None, class_name: str | None = None
) -> str:
    """Replace V* and other marks of the concept by its words, e.g. "sks dog".

    Args:
        prompt: with marks.
        concept: its words; None if they are not known.
        placeholder: the first of them, if it is known by itself.
        class_name: the others, if they are.

    Raises:
        UserError: if the prompt has a mark and the words are not known.
    """
    together = f"{PLACEHOLDER} {CLASS}"
    if concept is not None:
        prompt = prompt.replace(together, CONCEPT_MARKS[0])
    words = {PLACEHOLDER: placeholder, CLASS: class_name, **dict.fromkeys(CONCEPT_MARKS, concept)}

    def word(found: re.Match[str]) -> str:
        known = words[found[0]]
        if known is None:
            raise UserError(
                f"the prompt says {found[0]}, but the adapter does not say what it stands for",
                where=repr(prompt),
                do='write the words yourself, or pass --concept "sks dog"',
            )
        return known

    return _MARK.sub(word, prompt)


def has_mark(prompt: str) -> bool:
    """Whether a prompt has a mark that stands for the whole concept."""
    return any(mark in prompt for mark in CONCEPT_MARKS)


def has_any_mark(prompt: str) -> bool:
    """Whether a prompt has a mark for the concept, or for a part of it."""
    return _MARK.search(prompt) is not None


def odd_mark(prompt: str, known: Iterable[str | None] = ()) -> str:
    """Return what looks like a mark, but is none that is filled in, and what to write; or nothing.

    Args:
        prompt: with marks, or with these filled in.
        known: words that may look so, as a placeholder <sks>.
    """
    rest = _MARK.sub(" ", prompt)
    for word in known:
        rest = rest.replace(word, " ") if word and _ODD.search(word) else rest
    if found := _INVISIBLE.search(prompt):
        return f"it holds an invisible character (U+{ord(found[0]):04X}); write it anew by hand"
    if found := _NETWORK.search(rest):
        return f"{found[0]} loads nothing here; name adapter files by --adapter FILE:STRENGTH"
    if found := _WEIGHT.search(prompt):
        return f"the weight in {found[0]} is not read; write the words plainly"
    if found := _ODD.search(rest):
        return f"{found[0]!r} is filled in by nothing; write V* where the concept belongs"
    return ""


def names_concept(prompt: str, words: Iterable[str | None]) -> bool:
    """Whether a prompt, with its marks filled in, has some of the words, however they are spaced.

    Args:
        prompt: as it is drawn or trained.
        words: each enough by itself; None and empty ones are passed over.
    """
    text = plain_text(prompt)
    return any(plain_text(word) in text for word in words if word)


def plain_text(text: str) -> str:
    """Return text in lower case with single spaces, as CLIP reads it."""
    return _SPACES.sub(" ", text).strip().lower()
