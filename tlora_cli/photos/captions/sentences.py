"""Text -> sentences -> words with their places."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tlora_cli.photos.captions.words import DETERMINERS, ENGLISH, LOOKS, POSES, PRONOUNS

MARK = "V*"
"""Stands for the concept in a caption."""

_WORD = re.compile(r"V\*|['\u2019]s\b|\w+(?:-\w+)*(?:['\u2019](?!s\b)\w+)?|[^\w\s]")
_LABEL = re.compile(
    r"(?:assistant|answer|description|title|[^.:]{0,60}\bcaption\b[^.:]{0,40})\s*:\s*",
    re.IGNORECASE,
)
_QUOTES = ('""', "''", "``", "\u201c\u201d", "\u2018\u2019", "\u201e\u201c", "«»")
_DASHES = "-\u2013\u2014"
_BULLET = re.compile(r"(?:\d+[.)]|[-*#>]+)\s+")
_MEDIUM = r"(?:photo|photograph|picture|image|snapshot|shot)"
_OPENING = re.compile(
    rf"(?:here(?: is|['\u2019]s)|there (?:is|are)|there['\u2019]s|this is"
    rf"|in (?:this|the) {_MEDIUM},?(?: (?:there (?:is|are)|we (?:can )?see|you (?:can )?see))?"
    rf"|(?:this|the) {_MEDIUM} (?:shows|features|depicts|captures|displays|contains|is of)"
    rf"|(?:a|an|the) {_MEDIUM} (?:of|showing))\s+",
    re.IGNORECASE,
)
_CLOSING = re.compile(rf"\s+in (?:this|the) {_MEDIUM}(?=[,.;!]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Word:
    """A word or a sign of a text.

    Attributes:
        text: in small letters; `V*` as it is.
        start: place of its first letter.
        end: place behind its last one.
    """

    text: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    """Return the words and signs of a text."""
    found = _WORD.finditer(text)
    return [Word(m[0] if m[0] == MARK else m[0].lower(), m.start(), m.end()) for m in found]


def is_word(text: str) -> bool:
    """Whether it is a word, not a sign."""
    return text[0].isalnum()


def sentences_of(said: str) -> list[str]:
    """Return the sentences of what a model said, without labels, quotes around all, and openings.

    'Caption: "A photo of a dog. It sleeps."' gives `a dog` and `it sleeps`.
    """
    text = " ".join(said.replace("**", "").split()).replace("{concept}", MARK)
    before = None
    while text != before:
        before = text
        for head in (_BULLET, _LABEL):
            if found := head.match(text):
                text = text[found.end() :]
        bare = text.rstrip(".! ")
        if len(bare) > 1 and bare[0] + bare[-1] in _QUOTES:
            text = bare[1:-1].strip()
    parts = (tidy(_without_opening(one)) for one in re.split(r"(?<=[.!?])\s+", text))
    return [one for one in parts if one]


def tidy(sentence: str) -> str:
    """Return a sentence without what stands loose after words were taken out."""
    text = re.sub(r"\s+", " ", sentence)
    text = re.sub(r"\s+([,;:.!?])", r"\1", text)
    text = re.sub(r"([,;])(?:\s*[,;])+", r"\1", text).strip(" ,;:.!" + _DASHES)
    text = re.sub(r"(?:,?\s+(?:and|with|but|is|are))+$", "", text)
    first = re.match(r"\w+", text)
    if first and first[0].lower() in ENGLISH | DETERMINERS | PRONOUNS:
        text = text[0].lower() + text[1:]
    return text


def is_english(sentences: list[str]) -> bool:
    """Whether a text has one of the words that nearly each English one has; a short one may not."""
    words = [word.text for one in sentences for word in words_of(one) if is_word(word.text)]
    letters = "".join(words)
    return letters.isascii() if len(words) < 4 else bool((ENGLISH | LOOKS | POSES) & {*words})


def _without_opening(sentence: str) -> str:
    while found := _OPENING.match(sentence):
        sentence = sentence[found.end() :]
    return _CLOSING.sub("", sentence)
