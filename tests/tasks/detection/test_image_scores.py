from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lloss.modeling.head import LOG_FLOOR
from lloss.tasks.detection.image_scores import (
    CONFIDENT,
    MEAN_OVER,
    RANKS,
    SUMMARY_SIZE,
    of_sigmoid,
    of_softmax,
    scores,
    summary,
)


def _random(images: int = 3, anchors: int = 400, classes: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, anchors, classes + 1, generator=generator) * 2
    logits[:, :, 0] += 3
    return logits


def test_the_scores_are_their_formulas() -> None:
    logits = _random()
    found = scores(of_softmax(logits))
    for n, rows in enumerate(logits.double().softmax(2).tolist()):
        best = [max(row[1:]) for row in rows]
        entropies = [-sum(p * math.log(p) for p in row) for row in rows]
        chosen = [h for h, b in zip(entropies, best, strict=True) if b >= CONFIDENT]
        assert 1 < len(chosen) < len(rows)
        assert found["confidence"][n].item() == pytest.approx(max(best), abs=1e-5)
        assert found["entropy"][n].item() == pytest.approx(max(chosen), abs=1e-5)
    assert all(score.shape == (3,) and score.dtype == torch.float32 for score in found.values())


def test_an_image_without_a_confident_anchor_has_the_entropy_of_the_best_one() -> None:
    logits = torch.tensor([[[9.0, 0, 0], [4.0, 1, 0], [6.0, 2, 0]]])
    shares = logits[0, 1].softmax(0).tolist()
    found = scores(of_softmax(logits))
    assert found["confidence"].item() == pytest.approx(shares[1])
    assert found["entropy"].item() == pytest.approx(-sum(p * math.log(p) for p in shares))


def test_the_summary_is_its_formula() -> None:
    logits = _random()
    found = summary(of_softmax(logits))
    assert found.shape == (3, SUMMARY_SIZE)
    for row, numbers in zip(found, logits.double().softmax(2).numpy(), strict=True):
        best = numbers[:, 1:].max(1)
        order = np.argsort(-best)
        entropy = -(numbers * np.log(numbers)).sum(1)[order]
        expected = [
            *(math.log(best[order[rank - 1]]) for rank in RANKS),
            *(entropy[:count].mean() for count in MEAN_OVER),
            math.log1p((1 - numbers[:, 0]).sum()),
        ]
        assert row.tolist() == pytest.approx(expected, abs=1e-3)


def test_the_summary_is_detached_bounded_and_as_long_for_few_anchors() -> None:
    logits = torch.tensor([[[1e4, 0.0], [-1e4, 1e4]]], requires_grad=True)
    found = summary(of_softmax(logits))
    assert not found.requires_grad
    assert found.shape == (1, SUMMARY_SIZE)
    assert found.isfinite().all()
    assert found.min() == LOG_FLOOR


def test_classes_that_are_each_there_or_not_are_read_by_their_formulas() -> None:
    logits = _random()
    quality = logits[:, :, 0]
    found = of_sigmoid(logits, quality)
    yes = 1 / (1 + np.exp(-logits.double().numpy()))
    good = 1 / (1 + np.exp(-quality.double().numpy()))
    entropy = -(yes * np.log(yes) + (1 - yes) * np.log(1 - yes)).sum(2)
    assert np.allclose(found.entropy, entropy, atol=1e-4)
    assert np.allclose(found.foreground.exp(), np.sqrt(yes.max(2) * good), atol=1e-5)
    assert np.allclose(found.present, 1 - (1 - yes).prod(2), atol=1e-5)
    assert np.allclose(of_sigmoid(logits).foreground.exp(), yes.max(2), atol=1e-5)
    certain = of_sigmoid(torch.tensor([[[1e4, -1e4]]]))
    assert all(values.isfinite().all() for values in certain)
