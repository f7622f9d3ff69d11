"""Places of a sentence that name the subject, each with its attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tlora_cli.photos.captions.sentences import MARK, Word, is_word, words_of
from tlora_cli.photos.captions.words import (
    ADVERBS,
    DEFINITE,
    DETERMINERS,
    GROUPS,
    LOOKS,
    OTHERS,
    POSES,
    SAME,
    SEVERAL,
    STOPS,
    plural_of,
)


@dataclass(frozen=True)
class Mention:
    """Words for a thing of the class, from its article to its noun.

    Attributes:
        start: place of the first letter.
        end: place behind the last one.
        attributes: words between article and noun.
        poses: those of them that are poses.
        definite: whether it is one that was named before: "the dog".
        several: whether it is more than one.
    """

    start: int
    end: int
    attributes: frozenset[str]
    poses: tuple[str, ...]
    definite: bool
    several: bool


@dataclass
class Namer:
    """Puts V* in place of a subject's name, through the sentences of one caption.

    Args:
        forms: names of the class, each as its words, with whether it is a plural.

    Attributes:
        named: whether the subject was found.
        several: whether it was more than one.
    """

    forms: Sequence[tuple[tuple[str, ...], bool]]
    named: bool = False
    several: bool = False
    _attributes: frozenset[str] = field(default=frozenset())

    def named_in(self, sentence: str) -> str:
        """Return the sentence with V* for the subject.

        The first thing of the class is the subject. A later one is, too, if its article says that
        it was named before; "a dog" or "another dog" is one more, and a thing beside it.
        """
        result, place = "", 0
        for mention in mentions(sentence, self.forms):
            if self.named and not (
                mention.definite and mention.attributes - {*mention.poses} <= self._attributes
            ):
                continue
            if not self.named:
                self.named, self.several = True, mention.several
                self._attributes = mention.attributes
            result += sentence[place : mention.start] + " ".join((MARK, *mention.poses))
            place = mention.end
        return result + sentence[place:]


def forms_of(class_name: str) -> list[list[tuple[tuple[str, ...], bool]]]:
    """Return names by which a class may be called, the likeliest ones first, as `Namer` has them.

    First the class, then its last word ("bear" for a teddy bear), then other words for it.
    """
    words = tuple(class_name.lower().replace("-", " ").split())
    named = [_numbers(words)]
    if len(words) > 1:
        named.append(_numbers(words[-1:]))
    if others := SAME.get(words[-1]):
        named.append([form for one in others for form in _numbers((one,))])
    return named


def mentions(sentence: str, forms: Sequence[tuple[tuple[str, ...], bool]]) -> list[Mention]:
    """Return where a sentence names a thing of a class; "dog" in "a dog bed" names none."""
    words = [part for word in words_of(sentence) for part in _parts(word)]
    found = []
    place = 0
    while place < len(words):
        form = next((one for one in forms if _stands(words, place, one[0])), None)
        if form is None:
            place += 1
            continue
        end = place + len(form[0])
        if _ends_name(words[end].text if end < len(words) else "."):
            first = _first(words, place)
            before = [word.text for word in words[first:place]]
            if not OTHERS & {*before}:
                found.append(_mention(words[first].start, words[end - 1].end, before, form[1]))
        place = end
    return found


def _mention(start: int, end: int, before: Sequence[str], plural: bool) -> Mention:
    attributes = [one for one in before if one not in DETERMINERS and is_word(one)]
    return Mention(
        start,
        end,
        frozenset(attributes),
        tuple(one for one in attributes if one in POSES),
        definite=bool(DEFINITE & {*before}),
        several=plural or bool(SEVERAL & {*before}),
    )


def _numbers(words: tuple[str, ...]) -> list[tuple[tuple[str, ...], bool]]:
    """Return a name in the number of the class, and in the other one: "dog" and "dogs"."""
    *rest, last = words
    forms = [(words, False), ((*rest, plural_of(last)), True)]
    if last.endswith("s") and not last.endswith("ss"):
        return [(words, False), ((*rest, last.removesuffix("s")), False)]
    return forms


def _parts(word: Word) -> list[Word]:
    """Return a word's parts between hyphens: a model may write "teddy-bear"."""
    parts, start = [], word.start
    for text in word.text.split("-") if is_word(word.text) else [word.text]:
        parts.append(Word(text, start, start + len(text)))
        start += len(text) + 1
    return parts


def _stands(words: Sequence[Word], place: int, name: Sequence[str]) -> bool:
    return [word.text for word in words[place : place + len(name)]] == [*name]


def _ends_name(following: str) -> bool:
    """Whether a noun before this word is the last one of its name: not "dog" in "a dog bed"."""
    if not is_word(following) or following in STOPS | ADVERBS | POSES | DETERMINERS:
        return True
    return following.endswith(("ing", "ed", "ly")) or (
        following.endswith("s") and not following.endswith("ss")
    )


def _first(words: Sequence[Word], noun: int) -> int:
    """Return the place of the first word that belongs to a noun: its article, or an attribute."""
    place = noun
    while place > 0:
        text = words[place - 1].text
        before = words[place - 2].text if place > 1 else "."
        if text in DETERMINERS:
            place -= 1
            if not (text in SEVERAL and before in DEFINITE):
                break
        elif text == "of" and before in GROUPS:
            place -= 2
        elif text in (",", "and"):
            if before == "," and place > 2:
                before = words[place - 3].text
            if before not in LOOKS:  # "in the snow, a dog", "a cat and dog"
                break
            place -= 1
        elif not is_word(text) or text in STOPS or _is_action(text, before):
            break
        else:
            place -= 1
    return place


def _is_action(text: str, before: str) -> bool:
    """Whether it says what another one does to the noun: "a woman holding dogs"."""
    if not text.endswith("ing") or text in POSES or text == "looking":
        return False
    return is_word(before) and before not in DETERMINERS
