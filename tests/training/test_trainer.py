from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lloss.errors import CheckpointError, DivergedError, LabelError
from lloss.modeling.head_losses import HEAD_LOSSES
from lloss.tasks.train_settings import TrainSettings
from lloss.training.trainer import Trainer, predict
from lloss.training.training_data import TrainingData

MakeData = Callable[..., TrainingData]
Make = Callable[..., Trainer]
Weights = dict[str, Tensor]


@pytest.fixture
def make(tiny: TrainSettings, make_data: MakeData) -> Make:
    """Make a trainer on data, or on so many images."""

    def trainer(data: TrainingData | int = 24, **changes: Any) -> Trainer:
        data = make_data(data) if isinstance(data, int) else data
        return Trainer(replace(tiny, **changes), data, "cpu")

    return trainer


def _weights(module: nn.Module) -> Weights:
    return {key: value.clone() for key, value in module.state_dict().items()}


def _equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def _run(trainer: Trainer, steps: int | None = None) -> list[dict[str, float]]:
    """So many steps, or to the end; the figures of each epoch that ended."""
    figures = []
    while not trainer.finished and steps != 0:
        ended = trainer.advance()
        figures += [ended] if ended is not None else []
        steps = None if steps is None else steps - 1
    return figures


def _batches_seen(trainer: Trainer) -> list[list[int]]:
    """Fills with the rows of each batch, of data whose images hold their row number."""
    seen: list[list[int]] = []
    trainer.normalize.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0][:, 0, 0, 0].tolist())
    )
    return seen


def _numbered(data: TrainingData) -> TrainingData:
    images = np.empty_like(data.images)
    images[:] = np.arange(len(images))[:, None, None, None]
    return replace(data, images=images)


@pytest.mark.parametrize(("count", "batch_size"), [(25, 8), (9, 8), (8, 8), (11, 3), (7, 2)])
def test_every_image_is_seen_once_an_epoch_with_its_target_and_none_stands_alone(
    make: Make, make_data: MakeData, count: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _numbered(make_data(count))
    trainer = make(data, batch_size=batch_size, augment="none")
    seen, targets = _batches_seen(trainer), list[list[int]]()
    real = trainer.model.objective.loss_per_image

    def spy(output: Any, truth: Tensor) -> Tensor:
        targets.append(truth.tolist())
        return real(output, truth)

    monkeypatch.setattr(trainer.model.objective, "loss_per_image", spy)
    figures = _run(trainer)
    assert len(figures) == 2
    assert targets == [[int(data.targets[row]) for row in batch] for batch in seen]
    half = len(seen) // 2
    for batches in (seen[:half], seen[half:]):
        assert Counter(row for batch in batches for row in batch) == Counter(range(count))
        sizes = [len(batch) for batch in batches]
        assert min(sizes) >= 2
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= max(batch_size, 3)


def test_the_total_is_the_mean_loss_plus_lambda_times_the_heads(
    make: Make, make_data: MakeData
) -> None:
    """Without momentum and decay one step moves each weight by -lr times the total's gradient."""
    plain = {"momentum": 0.0, "weight_decay": 0.0, "schedule": "step", "augment": "none"}
    plain["gradient_stop"] = -1
    for weight in (0.0, 0.3):
        settings = {**plain, "head_loss": "margin", "head_weight": weight, "xi": 2.0, "lr": 0.01}
        data = make_data(8)
        trainer, twin = (make(data, **settings) for _ in range(2))
        before = {name: p.detach().clone() for name, p in twin.model.named_parameters()}
        (figures,) = _run(trainer, 1)
        order = np.random.default_rng([0, 2, 0]).permutation(8)
        images, targets = (
            torch.from_numpy(data.images[order]),
            torch.from_numpy(data.targets[order]),
        )
        forward = twin.model.train()(twin.normalize(images))
        losses = nn.functional.cross_entropy(forward.output, targets, reduction="none")
        assert figures["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
        l, p = losses.detach(), forward.loss
        pairs = [
            torch.clamp(-torch.sign(l[i] - l[i + 4]) * (p[i] - p[i + 4]) + 2.0, min=0)
            for i in range(4)
        ]
        (losses.mean() + weight * torch.stack(pairs).mean()).backward()  # type: ignore[no-untyped-call]
        for name, parameter in trainer.model.named_parameters():
            gradient = dict(twin.model.named_parameters())[name].grad
            moved = parameter.detach() - before[name]
            expected = torch.zeros_like(moved) if gradient is None else -0.01 * gradient
            assert torch.allclose(moved, expected, atol=1e-6), name


def test_a_head_loss_works_by_its_line_in_the_list(
    make: Make, make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        HEAD_LOSSES, "half", lambda predicted, target, xi=1.0: predicted.sum() * 0 + 0.5
    )
    (figures,) = _run(make(make_data(8), head_loss="half"), 1)
    assert figures["head_loss"] == 0.5


def _next_step_depends_on_the_head(trainer: Trainer, without: Trainer) -> bool:
    """Whether the network's next weights differ from those that the target loss alone gives."""
    without.load_state(copy.deepcopy(trainer.state()))
    trainer.advance()
    without.advance()
    return not _equal(_weights(trainer.model.network), _weights(without.model.network))


@pytest.mark.parametrize("stop", [0, 1, 2, -1])
def test_the_gradient_of_the_head_reaches_the_network_in_the_epochs_before_the_stop_alone(
    make: Make, stop: int
) -> None:
    trainer, without = (
        make(gradient_stop=stop, epochs=4, head_weight=weight, head_summary=False)
        for weight in (1.0, 0.0)
    )
    while not trainer.finished:
        stopped = stop >= 0 and trainer.epoch >= stop
        assert trainer.gradient_stopped is stopped
        assert _next_step_depends_on_the_head(trainer, without) is not stopped


def _rates(trainer: Trainer) -> list[list[float]]:
    """The learning rate that each step of each epoch is taken with."""
    rates: list[list[float]] = [[] for _ in range(trainer.settings.epochs)]
    while not trainer.finished:
        rates[trainer.epoch].append(trainer.optimizer.param_groups[0]["lr"])
        trainer.advance()
    return rates


def test_the_rate_falls_to_a_tenth_with_the_first_step_of_a_milestone(make: Make) -> None:
    trainer = make(25, schedule="step", milestones=(2, 3), epochs=4, lr=0.1, batch_size=8)
    expected = [[rate] * 4 for rate in (0.1, 0.1, 0.01, 0.001)]
    assert _rates(trainer) == [pytest.approx(rates) for rates in expected]


def test_one_cycle_rises_to_the_rate_and_falls_to_nothing(make: Make) -> None:
    epochs = _rates(make(epochs=10, lr=0.1))
    rates = [rate for epoch in epochs for rate in epoch]
    top = rates.index(max(rates))
    assert len(rates) == 30
    assert rates[top] == pytest.approx(0.1, rel=0.02)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.002


def test_training_neither_reads_nor_moves_the_global_generators(make: Make) -> None:
    draws = []
    for trained in (False, True):
        torch.manual_seed(1)
        np.random.seed(1)
        if trained:
            one = make(25)
            _run(one)
        draws.append((torch.rand(3).tolist(), np.random.rand(3).tolist()))
    assert draws[0] == draws[1]
    other = make(25)
    while not other.finished:
        torch.rand(5)
        np.random.rand(5)
        other.advance()
    assert _equal(_weights(one.model), _weights(other.model))


def test_with_and_without_head_start_from_one_network_and_see_the_same_batches(make: Make) -> None:
    """A head whose gradient never reaches the network leaves no trace in it."""
    headed = make(25, gradient_stop=0)
    bare = make(25, head=False)
    assert bare.model.head is None
    assert _equal(_weights(headed.model.network), _weights(bare.model.network))
    figures = _run(headed), _run(bare)
    assert _equal(_weights(headed.model.network), _weights(bare.model.network))
    assert "ranking_accuracy" in figures[0][0]
    assert "ranking_accuracy" not in figures[1][0]
    assert "head_loss" not in figures[1][0]


@pytest.mark.parametrize(
    ("left_at", "schedule"), [(0, "step"), (2, "onecycle"), (3, "step"), (4, "onecycle")]
)
def test_a_run_left_at_any_step_and_taken_up_again_ends_as_if_never_left(
    make: Make, tmp_path: Path, left_at: int, schedule: str
) -> None:
    changes = {"schedule": schedule, "milestones": (1,), "gradient_stop": 1, "augment": "flip-crop"}
    whole = make(22, **changes)
    assert whole.steps == 3
    figures = _run(whole)
    left = make(22, **changes)
    before = _run(left, left_at)
    torch.save(left.state(), tmp_path / "state.pt")
    torch.manual_seed(left_at)  # another process, another state of the world
    again = make(22, **changes)
    again.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (again.epoch, again.step) == divmod(left_at, 3)
    after = _run(again)
    assert again.finished
    assert _equal(_weights(again.model), _weights(whole.model))
    for ours, theirs in zip(before + after, figures, strict=True):
        for name in theirs.keys() - {"images_per_second"}:
            assert ours[name] == theirs[name], name


def test_dropout_goes_on_as_if_never_left(make: Make, tmp_path: Path, make_data: MakeData) -> None:
    changes = {"model": "mobilenet_v3_small", "size": 32, "batch_size": 4, "epochs": 1}
    data = make_data(8, 32)
    whole, left, again = (make(data, **changes) for _ in range(3))
    seen: list[tuple[Tensor, Tensor]] = []
    (dropout,) = (m for m in whole.model.modules() if isinstance(m, nn.Dropout))
    dropout.inplace = False
    dropout.register_forward_hook(lambda _, i, o: seen.append((i[0] != 0, o != 0)))
    _run(whole)
    (one_in, one_out), (two_in, two_out) = seen
    alive = one_in & two_in
    assert (one_out[alive] != two_out[alive]).any()  # each step has a draw of its own
    _run(left, 1)
    torch.save(left.state(), tmp_path / "state.pt")
    again.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    _run(again)
    assert _equal(_weights(again.model), _weights(whole.model))


@pytest.mark.parametrize("changes", [{}, {"head": False}, {"head_loss": "mse"}])
def test_a_loss_that_is_no_number_stops_with_the_epoch_and_the_rate(
    make: Make, changes: dict[str, Any]
) -> None:
    what = (
        r"^training diverged: the (loss|gradient) became (nan|inf) at step \d "
        r"\(epoch 1 of 2, rate .*\); lower --lr \(it is 1e\+30; try 1e\+29\), or try "
    )
    with pytest.raises(DivergedError, match=what):
        _run(make(lr=1e30, **changes))


def test_a_gradient_that_is_no_number_reaches_no_weight(make: Make) -> None:
    """The step's loss was computed before it."""
    trainer = make(epochs=2, amp="bf16")
    _, weights = next(iter(trainer.model.named_parameters()))
    last = trainer.steps - 1

    def spoil(gradient: Tensor) -> Tensor:
        return gradient * (float("nan") if trainer.step == last else 1)

    weights.register_hook(spoil)
    _run(trainer, last)
    what = r"the gradient became nan at step 3 .*; lower --lr .* or --amp off"
    with pytest.raises(DivergedError, match=what) as refused:
        trainer.advance()
    assert "\n" not in str(refused.value)
    assert trainer.epoch == 0
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


def test_too_few_images_and_the_state_of_another_network_are_refused(
    make: Make, make_data: MakeData
) -> None:
    assert make(7).steps == 1  # a batch of 8 is the most
    with pytest.raises(LabelError, match="1 labeled image: .*label a second one"):
        make(1)
    for state in (make(make_data(classes=4)).state(), {"epoch": 1}):
        with pytest.raises(CheckpointError, match="does not fit"):
            make(make_data(classes=3)).load_state(state)


def test_training_learns(make: Make) -> None:
    figures = _run(make(48, epochs=6))
    assert figures[-1]["loss"] < figures[0]["loss"] / 2
    assert [epoch["epoch"] for epoch in figures] == [1, 2, 3, 4, 5, 6]
    assert all(0 <= epoch["ranking_accuracy"] <= 1 for epoch in figures)


def test_predictions_do_not_depend_on_the_batch_and_take_no_gradient(
    make: Make, tiny: TrainSettings, make_data: MakeData
) -> None:
    data = make_data(11)
    trainer = make(data)
    _run(trainer, 2)
    parts = {size: list(predict(trainer.model, tiny, data.images, size)) for size in (4, 11)}
    assert [(rows.start, rows.stop) for rows, _ in parts[4]] == [(0, 4), (4, 8), (8, 11)]
    joined = [torch.cat([f.loss for _, f in part if f.loss is not None]) for part in parts.values()]
    assert torch.allclose(joined[0], joined[1], atol=1e-5)
    assert not joined[0].requires_grad


def test_a_prediction_that_is_left_early_leaves_gradients_as_they_were(
    make: Make, tiny: TrainSettings
) -> None:
    trainer = make()
    left = predict(trainer.model, tiny, trainer.data.images, 8)
    with torch.no_grad():
        next(left)
    left.close()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_optimizer_is_the_one_that_is_named(make: Make, momentum: float) -> None:
    kinds = {"sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam}
    for name, kind in kinds.items():
        trainer = make(optimizer=name, momentum=momentum, weight_decay=0.01, lr=0.003)
        assert type(trainer.optimizer) is kind
        group = trainer.optimizer.param_groups[0]
        assert group["weight_decay"] == 0.01 and group["initial_lr"] < 0.003
        # Adam's own betas whatever the momentum is: with a first beta of 0 it runs away.
        assert group["betas"] == (0.9, 0.999) if name == "adam" else group["momentum"] == momentum
        _run(trainer, 2)
