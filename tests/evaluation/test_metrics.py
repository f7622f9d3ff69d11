"""Metrics of hand-made features."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from tlora_cli.evaluation import metrics


def features(*rows: list[float]) -> torch.Tensor:
    return normalize(torch.tensor(rows).float(), dim=-1)


def test_identical_pictures_score_one() -> None:
    one = features([1.0, 2.0, 3.0])
    same = one.expand(4, 3)
    assert metrics.image_similarity(same, one) == pytest.approx(1)
    nearest, share = metrics.copying(same, one)
    assert (nearest, share) == pytest.approx((1, 1))
    assert metrics.diversity(same) == pytest.approx(1, abs=1e-5)
    assert metrics.drift(same, same) == pytest.approx(0, abs=1e-6)


def test_metrics_of_hand_made_features() -> None:
    drawn = features([1, 0], [0, 1], [1, 1])
    real = features([1, 0], [3, 4])
    root = math.sqrt(0.5)
    pairs = [1, 0.6, 0, 0.8, root, 1.4 * root]
    assert metrics.image_similarity(drawn, real) == pytest.approx(sum(pairs) / 6)
    assert metrics.text_similarity(drawn[:2], real) == pytest.approx((1 + 0.8) / 2)
    nearest, share = metrics.copying(drawn, real)
    assert nearest == pytest.approx((1 + 0.8 + 1.4 * root) / 3)
    assert share == pytest.approx(2 / 3)  # 1 and 0.99 count, 0.8 doesn't
    assert metrics.drift(drawn[:2], real) == pytest.approx(1 - (1 + 0.8) / 2)


def test_diversity_counts_what_is_orthogonal() -> None:
    assert metrics.diversity(torch.eye(5)) == pytest.approx(5)
    assert metrics.diversity(torch.eye(2).repeat(3, 1)) == pytest.approx(2, abs=1e-5)
