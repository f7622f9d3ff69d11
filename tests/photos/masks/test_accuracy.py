"""The script that measures masks: its figures, and the outlines painted by hand."""

from __future__ import annotations

import json

import mask_accuracy
import numpy as np
import pytest
from mask_accuracy import Result, line, on_drawings, overlap, painted

from tlora_cli.toyworld.concepts import CONCEPTS


def test_intersection_over_union() -> None:
    one, other = np.zeros((2, 10, 10), bool)
    one[:6], other[4:] = True, True
    assert overlap(one, other) == 20 / 100 and overlap(one, one) == 1
    assert overlap(one, ~one) == 0 and overlap(one & False, one & False) == 1


def test_a_mask_in_doubt_is_counted_but_not_in_the_mean() -> None:
    found = [Result("a", 0.9, None), Result("b", 0.7, None), Result("c", 0.1, "falls apart")]
    assert line("all", found) == "| all | 3 | 0.800 | 0.800 | 0.70 | 1 |"


def test_outlines_are_in_thousandths_of_the_width() -> None:
    triangle = [[[0, 0], [1000, 0], [0, 500]]]
    assert painted(triangle, 400, 200).mean() == pytest.approx(0.5, abs=0.01)
    outlines = json.loads(mask_accuracy.OUTLINES.read_text("utf-8"))
    assert list(outlines) == [f"0{number}.jpg" for number in range(5)]
    for one in outlines.values():
        assert 0.2 < painted(one, 500, 500).mean() < 0.5


def test_drawings_are_measured_against_their_own_masks() -> None:
    [found] = on_drawings([("pip", CONCEPTS["pip"].scenes()[0])])
    assert (found.name, found.doubt) == ("pip", None) and found.overlap > 0.9
