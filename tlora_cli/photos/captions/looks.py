"""A sentence -> the same without what it says of the look of V* behind that name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tlora_cli.photos.captions.sentences import MARK, Word, is_word, words_of
from tlora_cli.photos.captions.words import (
    DEGREES,
    FORMS_OF_BE,
    LOOKS,
    PARTICLES,
    PARTS,
    POSES,
    POSSESSIVE,
    PREPOSITIONS,
    PRONOUNS,
    STOPS,
    VERBS,
)

_HAVE = {"with", "has", "have", "having"}
_BE = FORMS_OF_BE | {"looks", "appears"}
_RELATIVE = {"that", "which", "who"}
_OF_V = ([MARK, "'s"], [MARK, "\u2019s"])
_CLAUSE = re.compile(r",? and (?=(?:it|he|she|its|his|her) )|, (?=(?:it|its) )")
"""Sign or word between a clause and the next one, which is about "it"."""


def without_looks(sentence: str) -> str:
    """Return a sentence without what it says of the look of V*, or of "it" where a clause is so.

    "V* with brown fur and a red collar, on a sofa" gives "V* with a red collar, on a sofa": what
    can be taken off stays. A part of the body in a pose stays, too: "with its mouth open".
    """
    kept = ""
    for clause, lead in zip(_CLAUSE.split(sentence), ["", *_CLAUSE.findall(sentence)], strict=True):
        rest = _clause_without_looks(clause)
        if rest and rest not in PRONOUNS:
            kept += (lead if kept else "") + rest
    return kept


def _clause_without_looks(sentence: str) -> str:
    words = words_of(sentence)
    if not words:
        return sentence
    if words[0].text in POSSESSIVE or [one.text for one in words[:2]] in _OF_V:
        return "" if _tells_a_part(words) else sentence
    place = 1 if words[0].text in PRONOUNS else 0
    while place or MARK in [word.text for word in words]:
        if not place:
            place = 1 + [word.text for word in words].index(MARK)
            while place < len(words) and words[place].text in POSES:
                place += 1
        cut = _look_at(words, place)
        if cut is None:
            return re.sub(r"^(it|he|she) with ", r"\1 has ", sentence)
        start, end, instead = cut
        sentence = f"{sentence[:start].rstrip()} {instead} {sentence[end:].lstrip()}"
        sentence = " ".join(sentence.split()).replace(" ,", ",")
        words = words_of(sentence)
    return sentence


def _look_at(words: Sequence[Word], place: int) -> tuple[int, int, str] | None:
    """Return from where to where a look stands at a place, and what remains of it."""
    if place >= len(words):
        return None
    first = place
    if words[place].text == "," and place + 1 < len(words):
        place += 1
        if words[place].text not in _HAVE | _RELATIVE:
            end = _noun(words, place)
            if [word.text for word in words[end : end + 1]] == [","] and _says(words[end + 1 :]):
                return words[first].start, words[end].end, ""
            end = _adjectives(words, place)
            follows = words[end].text if end < len(words) else "."
            if end == place or (follows != "," and is_word(follows)):
                return None
            return words[first].start, words[end - (follows != ",")].end, ""
    relative = words[place].text in _RELATIVE
    place += relative
    if place >= len(words):
        return None
    if words[place].text in _HAVE:
        return _belongings(words, first, place)
    if words[place].text in _BE:
        end = _adjectives(words, place + 1) or _noun(words, place + 1)
        if end > place + 1:
            return words[first].start, words[_and(words, end) - 1].end, ""
    return None


def _belongings(words: Sequence[Word], first: int, have: int) -> tuple[int, int, str] | None:
    """Cut looks out of "with brown fur and a red collar"; None if there is none."""
    kept: list[tuple[int, int]] = []
    place, end, dropped = have + 1, have + 1, False
    while place < len(words):
        last = _thing(words, place)
        look = _is_look(words[place:last])
        if last == place or (not look and end > have + 1 and words[place - 1].text == ","):
            break
        clause = last < len(words) and words[last].text in FORMS_OF_BE
        if clause and not look and end > have + 1:
            break  # "with brown fur and the sofa is gray": a sentence of its own
        if look:
            dropped, last = True, _whereabouts(words, last)
        else:
            kept.append((place, last))
        end = last
        if last >= len(words) or words[last].text not in (",", "and"):
            break
        place = last + 1
        if words[last].text == "," and place < len(words) and words[place].text == "and":
            place += 1
    if not dropped:
        return None
    if not kept:
        return words[first].start, words[_and(words, end) - 1].end, ""
    lead = words[have].text if first == have else ", with" if words[first].text == "," else "with"
    # Words are joined as they are said: what is kept has no signs in it.
    things = " and ".join(" ".join(one.text for one in words[a:b]) for a, b in kept)
    return words[first].start, words[end - 1].end, f"{lead} {things}"


def _thing(words: Sequence[Word], place: int) -> int:
    """Return where a thing ends: "a black and white chest" as one."""
    start = place
    while place < len(words):
        text = words[place].text
        if text in PARTICLES and place > start:
            place += 1
        elif text in (",", "and"):
            if place == start or words[place - 1].text not in LOOKS:
                break
            place += 1
        elif not is_word(text) or text in STOPS or (place > start and _goes_on(text)):
            break
        else:
            place += 1
    return place


def _is_look(thing: Sequence[Word]) -> bool:
    """Whether a thing is a part of the body that is described: not "its head", "eyes closed"."""
    if not thing or thing[-1].text not in PARTS:
        return False
    return len(thing) != 2 or thing[0].text not in POSSESSIVE


def _whereabouts(words: Sequence[Word], place: int) -> int:
    """Return the place behind "on its chest", which says where on the subject a look is."""
    rest = [word.text for word in words[place : place + 5]]
    if len(rest) > 2 and rest[0] in PREPOSITIONS and rest[1] in POSSESSIVE | {"the"}:
        for count, text in enumerate(rest[2:], 3):
            if text in PARTS:
                return place + count
            if not is_word(text) or text in STOPS:
                break
    return place


def _adjectives(words: Sequence[Word], place: int) -> int:
    """Return where adjectives of look end, as in "brown and very fluffy"; 0 if there are none."""
    end = 0
    while place < len(words):
        text = words[place].text
        if text in LOOKS:
            end = place + 1
        elif text not in DEGREES and not (end and text in (",", "and")):
            break
        place += 1
    if not end:
        return 0
    if [word.text for word in words[end : end + 2]] in (["in", "color"], ["in", "colour"]):
        end += 2
    follows = words[end].text if end < len(words) else "."
    # "is brown dog" or "is small enough" is something else.
    return end if not is_word(follows) or follows in STOPS | {"and"} or _acts(follows) else 0


def _noun(words: Sequence[Word], place: int) -> int:
    """Return where "a golden retriever" ends behind "is": what the subject is; 0 if it isn't so."""
    if place >= len(words) or words[place].text not in ("a", "an"):
        return 0
    return _thing(words, place)


def _and(words: Sequence[Word], end: int) -> int:
    """Return the place behind an "and" that would stand loose: "V* (is brown) and sits"."""
    if end + 1 < len(words) and words[end].text == "and":
        follows = words[end + 1].text
        return end + 1 if follows in STOPS or _acts(follows) else end
    return end


def _says(words: Sequence[Word]) -> bool:
    return bool(words) and words[0].text in FORMS_OF_BE | VERBS


def _goes_on(text: str) -> bool:
    return text.endswith("ing") and text not in PARTS


def _acts(text: str) -> bool:
    return text.endswith(("ing", "s", "ed"))


def _tells_a_part(words: Sequence[Word]) -> bool:
    """Whether a sentence says how a part looks: "its fur is brown", "V*'s ears are floppy"."""
    texts = [word.text for word in words]
    at = next((n for n, text in enumerate(texts) if text in FORMS_OF_BE), None)
    if at is None or not PARTS & {*texts[:at]}:
        return False
    return bool(_adjectives(words, at + 1))
