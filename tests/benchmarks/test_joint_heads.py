"""Heads that learn beside a network's own: each as the network's own would."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData


def _data(bench: ModuleType, count: int) -> TrainingData:
    random = np.random.default_rng(0)
    targets = random.integers(0, 10, count)
    noise = random.integers(0, 60, (count, 32, 32, 3))
    return TrainingData(
        (noise + 15 * targets[:, None, None, None]).astype(np.uint8), targets, bench.CLASSES
    )


def test_the_network_and_a_plain_head_beside_are_those_of_lloss_train(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bench, "VARIANTS", {"plain": bench.Recipe(), "held": bench.Recipe(dropout=0.5)}
    )
    data = _data(bench, 40)
    settings = dataclasses.replace(bench.automatic_settings(data, 3), epochs=12)
    heads, alone = (
        bench.Heads(bench.Beside(settings, data, "cpu"), 0),
        Trainer(settings, data, "cpu"),
    )
    own, plain = heads.trainer.model.head, heads.heads["plain"]
    with torch.no_grad():
        for layer, copy in zip(own.inputs, [*plain.maps, plain.summary]):
            copy.load_state_dict(layer.state_dict())
        width = len(plain.of_maps)
        plain.of_maps.copy_(own.output.weight[0, :width])
        plain.of_summary.copy_(own.output.weight[0, width:])
        plain.bias.copy_(own.output.bias)
    while not alone.finished:
        heads.advance()
        alone.advance()
    trained, wanted = heads.trainer.model.state_dict(), alone.model.state_dict()
    assert all(torch.equal(trained[name], value) for name, value in wanted.items())
    found = heads.measure(_data(bench, 60))
    assert found["plain"] == pytest.approx(found[bench.REFERENCE], abs=0.01)
    assert found["held"] != found["plain"]
    for name, column in (("of_maps", slice(width)), ("of_summary", slice(width, None))):
        learned = getattr(plain, name).detach()
        torch.testing.assert_close(learned, own.output.weight[0, column], rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("name", ["summary alone", "maps 0 at first"])
def test_a_head_without_maps_predicts_by_the_summary(bench: ModuleType, name: str) -> None:
    head = bench.Head([3, 5, 7, 9], bench.VARIANTS[name])
    summary = torch.rand(6, bench.SUMMARY)
    first, other = ([torch.rand(6, size) for size in (3, 5, 7, 9)] for _ in range(2))
    assert torch.equal(head(first, summary), head(other, summary))
    assert head(first, summary).std() > 0


def test_maps_hidden_of_half_the_images_are_all_read_in_the_end(bench: ModuleType) -> None:
    head = bench.Head([3, 5, 7, 9], bench.Recipe(hidden_maps=0.5))
    pooled, summary = (
        [torch.rand(200, size) for size in (3, 5, 7, 9)],
        torch.rand(200, bench.SUMMARY),
    )
    without = torch.relu(head.summary(summary)) @ head.of_summary + head.bias
    torch.manual_seed(0)
    hidden = int((head.train()(pooled, summary) == without).sum())
    assert 60 < hidden < 140
    assert not (head.eval()(pooled, summary) == without).any()


def test_each_parameter_of_a_variant_is_trained_once(bench: ModuleType) -> None:
    for name, recipe in bench.VARIANTS.items():
        head = bench.Head([3, 5, 7, 40], recipe)
        groups = head.groups(0.1)
        trained = [id(value) for group in groups for value in group["params"]]
        assert sorted(trained) == sorted(map(id, head.parameters())), name
        held = {group["weight_decay"] for group in groups[1:]}
        assert held == {0.1 if recipe.decay is None else recipe.decay}, name
        if recipe.rate:
            assert groups[4]["times"] == bench.SUMMARY / 40 and groups[0]["times"] == 1


def test_what_is_done_is_not_computed_again_and_the_table_is_paired(
    bench: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    ran = []

    def trial(train: TrainingData, test: TrainingData, labels: int, seed: int) -> dict[str, float]:
        ran.append((labels, seed))
        own = 0.5 + 0.1 * seed
        shift = 0.02 + 0.01 * (seed % 2)
        return {
            "accuracy": 0.25,
            "entropy": 0.1,
            bench.REFERENCE: own,
            "summary alone": own + shift,
        }

    monkeypatch.setattr(bench, "run_trial", trial)
    data = _data(bench, 30)
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}_images.npy", data.images)
        np.save(tmp_path / f"{split}_labels.npy", data.targets)
    words = ["--arrays", str(tmp_path), "--out", str(tmp_path / "out.jsonl"), "--labels", "20"]
    bench.main([*words, "--trials", "2"], standalone_mode=False)
    bench.main([*words, "--trials", "4"], standalone_mode=False)
    assert ran == [(20, 0), (20, 1), (20, 2), (20, 3)]
    out = capsys.readouterr().out
    assert "20 labels, 4 trials, accuracy 0.250" in out
    # Of .02, .03, .02, .03: the mean, and t(3) times the standard error .00289
    assert "| summary alone | 0.675 | +0.0250 (+0.0158 to +0.0342) |" in out


def test_only_the_asked_rows_are_read(bench: ModuleType, tmp_path: Path) -> None:
    images = np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3)
    np.save(tmp_path / "test_images.npy", images)
    np.save(tmp_path / "test_labels.npy", np.arange(6))
    found = bench.read_split(tmp_path, "test", (2, 5))
    assert np.array_equal(found.images, images[2:5]) and list(found.targets) == [2, 3, 4]
