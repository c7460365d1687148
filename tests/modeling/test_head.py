from __future__ import annotations

import pytest
import torch
from torch import nn

from lloss.modeling.head import LossPredictionHead


def test_the_head_computes_what_the_paper_writes() -> None:
    head = LossPredictionHead([3, 5], hidden=4).requires_grad_(False)
    first, second = torch.randn(6, 3), torch.randn(6, 5)
    a, b = (layer for layer in head.inputs if isinstance(layer, nn.Linear))
    expected = []
    for n in range(6):
        hidden = [max(0.0, float(a.weight[k] @ first[n] + a.bias[k])) for k in range(4)]
        hidden += [max(0.0, float(b.weight[k] @ second[n] + b.bias[k])) for k in range(4)]
        weights = head.output.weight[0].tolist()
        linear = sum(w * h for w, h in zip(weights, hidden, strict=True))
        expected.append(linear + head.output.bias.item())
    assert torch.allclose(head([first, second]), torch.tensor(expected), atol=1e-5)


def test_a_summary_is_one_more_input() -> None:
    head = LossPredictionHead([3], summary=2)
    pooled, summary = torch.rand(4, 3), torch.rand(4, 2, requires_grad=True)
    head([pooled], summary).sum().backward()
    assert len(head.inputs) == 2
    assert summary.grad is not None
    assert summary.grad.abs().sum() > 0


def test_another_number_of_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="1 inputs for a head of 2"):
        LossPredictionHead([3, 4])([torch.rand(2, 3)])
    with pytest.raises(ValueError, match="2 inputs for a head of 1"):
        LossPredictionHead([3])([torch.rand(2, 3)], torch.rand(2, 2))
