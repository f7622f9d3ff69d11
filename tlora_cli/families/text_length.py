"""Lengths of prompts: what stands behind the last token that a text encoder reads is cut off."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tlora_cli.families.facts import TextEncoder
from tlora_cli.families.spec import Family
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.prompts import plain_text

ENDLESS = 100_000
"""A length from which on a tokenizer's file means that it says none."""
SHOWN = 80
"""Characters of a text that a message shows."""


@dataclass(frozen=True)
class Cut:
    """The part of a text that one text encoder doesn't read.

    Attributes:
        encoder: its name in the pipeline.
        limit: tokens that it reads, without those that begin and end a text.
        tokens: of the text.
        rest: the end of the text that it doesn't read.
        lost: names of the concept that stand in the text, none of which it reads.
        whole: whether it is the encoder that is given the longest texts.
    """

    encoder: str
    limit: int
    tokens: int
    rest: str
    lost: tuple[str, ...]
    whole: bool


def cuts(family: Family, pipeline: Any, text: str, names: Sequence[str] = ()) -> Iterator[Cut]:
    """Yield what each encoder doesn't read of a text; nothing if all is read.

    Args:
        family: of the pipeline.
        pipeline: has the tokenizers; one that is None is passed over.
        text: a prompt.
        names: words for the concept, each enough by itself.
    """
    held = {one: _tokenizer(pipeline, one) for one in family.text_encoders}
    held = {one: tokenizer for one, tokenizer in held.items() if tokenizer is not None}
    own = [one for one in held if one.tokenizer == family.text_tokenizer]
    longest = next(iter(own or held), None)  # a base may lack that one
    for encoder, tokenizer in held.items():
        limit, whole = tokenizer.model_max_length, encoder is longest
        if whole:
            limit = min(limit, family.text_tokens)
        limit = family.text_room(tokenizer, limit)
        tokens = _tokens(tokenizer, text)
        if limit > ENDLESS or len(tokens) <= limit:
            continue
        there = [name for name in names if _holds(tokenizer, tokens, text, name)]
        read = tokenizer.decode(tokens[:limit])
        kept = [name for name in there if _holds(tokenizer, tokens[:limit], read, name)]
        rest = tokenizer.decode(tokens[limit:]).strip()
        lost = () if kept else tuple(there)
        yield Cut(encoder.name, limit, len(tokens), rest, lost, whole)


def limit_lengths(family: Family, pipeline: Any) -> list[str]:
    """Bring tokenizers down to what their encoders read; return what should be said of them.

    The stock pipelines fill texts up to the length that the tokenizer says. An encoder with learned
    positions, as CLIP's, has no places for more than it was made with.

    Args:
        family: of the pipeline.
        pipeline: has tokenizers and encoders; one that is None is passed over.
    """
    notes = []
    for encoder in family.text_encoders:
        tokenizer = _tokenizer(pipeline, encoder)
        config = getattr(getattr(pipeline, encoder.name, None), "config", None)
        places = getattr(config, "max_position_embeddings", None)
        if tokenizer is None or places is None or tokenizer.model_max_length <= places:
            continue
        if tokenizer.model_max_length < ENDLESS:
            notes.append(too_long(encoder, tokenizer.model_max_length, places))
        tokenizer.model_max_length = places
        if encoder.tokenizer == "tokenizer" and hasattr(pipeline, "tokenizer_max_length"):
            pipeline.tokenizer_max_length = places  # FLUX's pipeline keeps a copy
    return notes


def too_long(encoder: TextEncoder, says: int, places: int) -> str:
    """Return what is said of a tokenizer whose texts are longer than its encoder reads."""
    return (
        f"the base's {encoder.tokenizer} says model_max_length: {says}, but its {encoder.name} "
        f"reads {places} tokens; {places} are used"
    )


def said_lengths(family: Family, folder: Path) -> list[str]:
    """Return the same of a base's folder by its files, without loading anything.

    A file that is missing or damaged is not looked at: loading tells of it.
    """
    notes = []
    for encoder in family.text_encoders:
        says = _number(folder / encoder.tokenizer / "tokenizer_config.json", "model_max_length")
        places = _number(folder / encoder.name / "config.json", "max_position_embeddings")
        if says is not None and places is not None and places < says < ENDLESS:
            notes.append(too_long(encoder, says, places))
    return notes


def _number(file: Path, key: str) -> int | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None


def _tokenizer(pipeline: Any, encoder: TextEncoder) -> Any:
    """Return an encoder's tokenizer, or None; a processor of pictures and texts has it inside."""
    part = getattr(pipeline, encoder.tokenizer, None)
    return getattr(part, "tokenizer", part)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    numbers: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return numbers


def _holds(tokenizer: Any, tokens: Sequence[int], text: str, name: str) -> bool:
    """Whether a name is in a text, by its tokens or, where others run into it, by its letters."""
    wanted = _tokens(tokenizer, name)
    size = len(wanted)
    by_tokens = any(tokens[n : n + size] == wanted for n in range(len(tokens) - size + 1))
    return by_tokens or plain_text(name) in plain_text(text)


def check_lengths(
    family: Family,
    pipeline: Any,
    texts: Sequence[str],
    names: Sequence[str] = (),
    *,
    stop: bool = True,
) -> None:
    """Refuse texts of which the concept is cut off, and warn of others that are cut.

    Args:
        family: of the pipeline.
        pipeline: has the tokenizers.
        texts: prompts and captions, with the concept filled in.
        names: words for the concept, each enough by itself.
        stop: whether to refuse; else it is a warning, too.

    Raises:
        UserError: if the encoder of the longest texts reads none of the names that a text holds.
    """
    found: dict[int, dict[str, Cut]] = {}  # by limit: SDXL's two encoders read alike
    for text in dict.fromkeys(texts):
        for cut in cuts(family, pipeline, text, names):
            if cut.lost and cut.whole and stop:
                raise UserError(
                    f"{cut.lost[0]!r} stands behind the {cut.limit} tokens that {family.title} "
                    f"reads of a prompt (this one has {cut.tokens}), so it is cut off",
                    where=repr(_short(text)),
                    do=f"put {cut.lost[0]!r} or V* near the beginning, or shorten the prompt",
                )
            found.setdefault(cut.limit, {}).setdefault(text, cut)
    for several in found.values():
        warnings.warn(_told(several, family), stacklevel=3)


def _told(several: Mapping[str, Cut], family: Family) -> str:
    text, cut = next(iter(several.items()))
    others = f" ({len(several) - 1} more are too long)" if len(several) > 1 else ""
    elsewhere = "" if cut.whole else f" (the other encoder of {family.title} reads more)"
    return (
        f"the prompt {_short(text)!r} has {cut.tokens} tokens{others}, and {cut.encoder} reads "
        f"{cut.limit}{elsewhere}; it does not read: {_short(cut.rest)!r}"
    )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def local_tokenizers(family: Family, folder: Path) -> Any:
    """Return the tokenizers of a diffusers folder, under their names; None for one without files.

    Nothing is downloaded, and no weights are read.
    """
    from transformers import AutoTokenizer

    found: dict[str, Any] = {}
    for encoder in family.text_encoders:
        place = folder / encoder.tokenizer
        try:
            tokenizer = AutoTokenizer.from_pretrained(place) if place.is_dir() else None
        except Exception:  # what is wrong with it is told when the base is looked at or loaded
            tokenizer = None
        places = _number(folder / encoder.name / "config.json", "max_position_embeddings")
        if tokenizer is not None and places is not None:
            tokenizer.model_max_length = min(tokenizer.model_max_length, places)
        found[encoder.tokenizer] = tokenizer
    return SimpleNamespace(**found)
