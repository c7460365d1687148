"""When two probes count as those of one network."""

from __future__ import annotations

import pytest
import torch

from lloss.training.probe import TOLERANCE, same


@pytest.mark.parametrize(
    ("name", "values", "difference", "equal"),
    [
        ("embedding", [20.0, 0.1], 20 * TOLERANCE * 0.9, True),
        ("embedding", [20.0, 0.1], 20 * TOLERANCE * 1.1, False),
        ("embedding", [0.02, 0.01], 0.02 * TOLERANCE * 1.1, False),
        ("embedding", [0.0, 0.0], 0.0, True),
        ("entropy", [1e-6, 1e-7], TOLERANCE * 0.9, True),  # a sure network
        ("entropy", [1e-6, 1e-7], TOLERANCE * 1.1, False),
        ("entropy", [2.0, 1.0], float("nan"), False),
    ],
)
def test_values_may_differ_by_a_share_of_the_largest(
    name: str, values: list[float], difference: float, equal: bool
) -> None:
    kept = {name: torch.tensor(values)}
    assert same(kept, {name: kept[name] + difference}) is equal


def test_other_shapes_and_names_are_of_another_network() -> None:
    kept = {"embedding": torch.ones(2, 3)}
    assert not same(kept, {"embedding": torch.ones(2, 4)})
    assert not same(kept, {**kept, "entropy": torch.ones(2)})
