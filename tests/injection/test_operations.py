"""What a training step of true size dispatches and computes, counted on the meta device."""

from __future__ import annotations

from functools import cache

import pytest
from benchmark.counting import Counted, count_step

FLOOR = 14.56e12
"""FLOPs of SDXL's forward and backward pass at 1024 px with a frozen base and rank 64 on q, k, v
and out, gradients of the text included."""


@cache
def counted(method: str | None) -> Counted:
    return count_step("sdxl", method, 64)


@pytest.mark.parametrize(
    ("method", "factor"), [pytest.param("lora", 1.6, marks=pytest.mark.full), ("tlora", 1.7)]
)
def test_a_step_dispatches_little_more_than_the_bare_unet(method: str, factor: float) -> None:
    bare = counted(None).operations
    assert 6000 < bare < 6800, "the count is of another kind than the limits"
    assert counted(method).operations <= factor * bare


@pytest.mark.parametrize("method", [pytest.param("lora", marks=pytest.mark.full), "tlora"])
def test_a_step_computes_little_more_than_the_frozen_base(method: str) -> None:
    bare = counted(None).flops
    assert bare == pytest.approx(FLOOR, rel=0.03)
    assert bare < counted(method).flops <= 1.04 * bare
