"""A model's words for a photo -> a caption that names what should not be learned.

What a caption names goes to the words for it, and what it leaves out goes to the concept. So place,
pose, view, light and things beside the subject stay, and so does what it wears or carries: it can
be taken off. The subject is called V*, and what tells of its look is taken out: attributes before
its name ("a brown fluffy dog"), parts of its body ("with long ears"), and sentences about them.

The rule goes by lists of English words, without a grammar. It is a help for who reads the caption
afterwards, not a proof; what it can't judge it leaves, and says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tlora_cli.photos.captions.looks import without_looks
from tlora_cli.photos.captions.sentences import (
    MARK,
    is_english,
    sentences_of,
    tidy,
    words_of,
)
from tlora_cli.photos.captions.subject import Namer, forms_of
from tlora_cli.photos.captions.words import ADVERBS, FORMS_OF_BE, PREPOSITIONS, PRONOUNS, VERBS

_WHERE = (PREPOSITIONS | ADVERBS) - {"of", "for", "about", "to"}


@dataclass(frozen=True)
class Caption:
    """A caption by the rule.

    Attributes:
        text: with V* for the concept, on one line.
        doubts: what may be wrong with it, each to be said after its name.
    """

    text: str
    doubts: tuple[str, ...] = ()


def caption_of(said: str, class_name: str) -> Caption:
    """Return the caption of a photo.

    Args:
        said: a description of it in English, of one or several sentences.
        class_name: what it shows, e.g. `dog` or `teddy bear`.
    """
    sentences = sentences_of(said)
    doubts = []
    english = is_english(sentences)
    if not english:
        doubts.append("doesn't read as English, the one language that the rule knows")
    named = any(MARK in one for one in sentences)
    if not named:
        for forms in forms_of(class_name):
            namer = Namer(forms)
            marked = [namer.named_in(one) for one in sentences]
            if namer.named:
                sentences, named = marked, True
                if namer.several:
                    doubts.append(f"speaks of several, as if it showed more than one {class_name}")
                break
    if not named and sentences:
        sentences, clear = _put_before(sentences)
        if english and not clear:
            doubts.append(
                f"doesn't call the subject {class_name!r}: strike out what tells of its look"
            )
    text = _joined([tidy(without_looks(one)) for one in sentences])
    if text == MARK:
        doubts.append(f"says nothing but {MARK}: add the place, the pose and what is beside it")
    return Caption(text, tuple(doubts))


def _put_before(sentences: list[str]) -> tuple[list[str], bool]:
    """Put V* at the head of a text that doesn't name the subject.

    Returns:
        The sentences, and whether the text is sure to be about its surroundings alone.
    """
    first, *rest = sentences
    words = [word.text for word in words_of(first)]
    if words[0] in PRONOUNS and len(words) > 1 and words[1] in FORMS_OF_BE | VERBS:
        return [MARK + first[len(words[0]) :], *rest], True
    if words[0] in _WHERE or words[0].endswith("ing"):
        return [f"{MARK} {first[0].lower()}{first[1:]}", *rest], True
    return [f"{MARK}, {first}", *rest], False


def _joined(sentences: list[str]) -> str:
    """Return a caption of what is left of its sentences."""
    said = [one for one in sentences if one and one != MARK and one not in PRONOUNS]
    if said and not any(MARK in one for one in said):
        said, _ = _put_before(said)
    first, *rest = [_shortened(one) for one in said] or [MARK]
    return ". ".join([first, *(one[0].upper() + one[1:] for one in rest)])


def _shortened(sentence: str) -> str:
    """Return "V* sitting" for "V* is sitting"."""
    return re.sub(r"^V\* (?:(?:that|which|who) )?(?:is|are) (?=\w)", f"{MARK} ", sentence)
