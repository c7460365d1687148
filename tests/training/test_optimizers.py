from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lloss.modeling.pretrained_weights import start_from
from lloss.tasks.train_settings import TrainSettings
from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData

MakeData = Callable[..., TrainingData]


@pytest.fixture
def make(tiny: TrainSettings, make_data: MakeData) -> Callable[..., Trainer]:
    """Make a trainer on 24 images."""
    return lambda **changes: Trainer(replace(tiny, **changes), make_data(24), "cpu")


def _weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.network.state_dict().items()}


@pytest.mark.parametrize("schedule", ["onecycle", "step"])
def test_layers_that_start_fresh_have_a_rate_of_their_own(
    tiny: TrainSettings, make_data: MakeData, schedule: Any
) -> None:
    settings = replace(tiny, lr=0.01, fresh_lr=5.0, optimizer="adamw", schedule=schedule)
    model = Trainer(settings, make_data(24), "cpu").model
    start = model.network.state_dict()
    last = "classifier"
    body = {name: v for name, v in start.items() if not name.startswith(last)}
    model.start = start_from(model.network, body, "w.pt", "net", {last})
    trainer = Trainer(settings, make_data(24), "cpu", model)
    trained, fresh = trainer.optimizer.param_groups
    own = {id(p) for p in trained["params"]}
    assert own == {
        id(p) for n, p in model.network.named_parameters() if not n.startswith(last)
    }  # fmt: skip
    assert len(trained["params"]) + len(fresh["params"]) == len(list(model.parameters()))
    for _ in range(3):
        assert fresh["lr"] == pytest.approx(5 * trained["lr"])
        figures = trainer.advance()
    assert figures is not None and 0 < figures["lr"] <= 0.01


def test_without_trained_weights_there_is_one_rate(make: Callable[..., Trainer]) -> None:
    (group,) = make(fresh_lr=5.0).optimizer.param_groups
    assert len(group["params"]) > 10


@pytest.mark.parametrize("gradient_stop", [0, -1])
def test_long_gradients_are_shortened_and_others_are_not(
    make: Callable[..., Trainer], gradient_stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGD without momentum and decay moves by the rate times the gradient."""
    changes = {"momentum": 0.0, "weight_decay": 0.0, "lr": 1.0, "schedule": "step"}
    moved = {}
    for clip in (0.0, 1e-3, 1e3):
        trainer = make(clip=clip, gradient_stop=gradient_stop, **changes)
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.advance()
        moved[clip] = {n: p.detach() - before[n] for n, p in trainer.model.named_parameters()}
    for part in ("network.", "head."):
        long, short, same = (
            torch.cat([v.flatten() for n, v in moved[clip].items() if n.startswith(part)])
            for clip in (0.0, 1e-3, 1e3)
        )
        assert long.norm() > 1e-2
        assert short.norm() == pytest.approx(1e-3, rel=0.01)
        torch.testing.assert_close(short / short.norm(), long / long.norm(), atol=1e-3, rtol=1e-2)
        assert torch.equal(same, long)


def test_clipping_the_head_leaves_no_trace_in_the_network(make: Callable[..., Trainer]) -> None:
    with_head, without = make(clip=0.01), make(clip=0.01, head=False)
    for trainer in (with_head, without):
        trainer.advance()
    one, other = _weights(with_head), _weights(without)
    assert all(torch.equal(one[name], other[name]) for name in other)
