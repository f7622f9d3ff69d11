"""Places without a subject: how they are drawn, and what words they have."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import ImageFilter

from tlora_cli.toyworld.captions import BACKGROUND_WORDS, place_caption, vocabulary
from tlora_cli.toyworld.factors import FACTORS, Scene
from tlora_cli.toyworld.renderer import draw, draw_place


@pytest.mark.parametrize("background", FACTORS["background"])
def test_a_place_is_the_picture_without_what_stands_in_it(background: str) -> None:
    values = {"class": "star", "color": "pink", "background": background, "position": "left",
              "accessory": "none", "marking": "none", "feature": "none"}  # fmt: skip
    picture, place = draw(Scene(values, texture=7)), draw_place(background, 7)
    around = np.asarray(picture.mask.filter(ImageFilter.MaxFilter(5))) > 0
    with_it, without = np.asarray(picture.image), np.asarray(place)
    assert np.array_equal(with_it[~around], without[~around])
    assert (with_it[around] != without[around]).any(-1).mean() > 0.5
    assert np.array_equal(without, np.asarray(draw_place(background, 7)))


@pytest.mark.parametrize("background", FACTORS["background"])
def test_captions_name_the_place_in_words_that_the_tokenizers_know(background: str) -> None:
    assert place_caption(background) == f"a photo, {BACKGROUND_WORDS[background][0]}"
    known, seen = set(vocabulary()), set()
    for number in range(40):
        text = place_caption(background, random.Random(number))
        seen.add(text)
        assert any(text.endswith(words) for words in BACKGROUND_WORDS[background])
        assert set(text.replace(",", "").split()) <= known
    assert len(seen) > 5
