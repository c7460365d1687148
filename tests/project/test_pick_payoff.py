from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.annotations.label_csv import read_labels
from lloss.data.labeled_set import LabeledSet
from lloss.manifest import read_manifest
from lloss.project import pick_payoff
from lloss.project.cycle import next_cycle
from lloss.project.pick_payoff import Payoff, measure_payoff
from lloss.project.picks_file import RANDOM, SELECTED
from lloss.project.project import Project
from lloss.project.summary import read_summaries
from lloss.scores.scores_folder import ScoresFolder
from lloss.statistics.loss_unit import LossUnit
from lloss.training.checkpoint import load_checkpoint
from lloss.training.evaluation import evaluate_checkpoint

from .cycle_steps import add, selected, unlabeled


def labeled(project: Project, pool: Path, labels: Path) -> tuple[LabeledSet, list[str]]:
    """All images of the pool labeled, and those that were not."""
    rest = unlabeled(pool, labels)
    add(labels, rest)
    return project.open_labels(), rest


def write_picks(folder: Path, chosen: list[str], random: list[str]) -> None:
    rows = [
        f"{id},1.0,{n},{why}"
        for ids, why in ((chosen, ""), (random, RANDOM))
        for n, id in enumerate(ids)
    ]
    (folder / SELECTED).write_text("id,score,rank,reason\n" + "\n".join(rows) + "\n")


def test_picks_are_compared_with_random_images_under_the_model_that_picked(
    done: Project, pool: Path, labels: Path
) -> None:
    now, rest = labeled(done, pool, labels)
    folder = done.cycles / "001"
    write_picks(folder, rest[:12], rest[12:24])
    payoff = measure_payoff(folder, read_summaries(done.cycles)[0], now, Problems())
    losses = []
    for ids in (rest[:12], rest[12:24]):
        some = now.take(row for row, item in enumerate(now.items) if item.id in ids)
        losses.append(evaluate_checkpoint(load_checkpoint(folder), some).true_loss.astype(float))
    assert payoff is not None and (payoff.picks, payoff.images, payoff.cycle) == (12, 12, 1)
    assert payoff.loss == pytest.approx(losses[0].mean())
    assert payoff.lift == pytest.approx(losses[0].mean() / losses[1].mean())
    assert payoff.source == "random images" and payoff.interval is not None
    spread = [each.std(ddof=1) / math.sqrt(12) / each.mean() for each in losses]
    reach = math.exp(1.959964 * math.hypot(*spread))
    assert payoff.interval == pytest.approx((payoff.lift / reach, payoff.lift * reach))


def test_without_random_images_the_held_out_ones_are_compared_with(
    done: Project, pool: Path, labels: Path
) -> None:
    now, rest = labeled(done, pool, labels)
    folder, before = done.cycles / "001", read_summaries(done.cycles)[0]
    write_picks(folder, rest[:12], rest[12:15])
    assert before.evaluation is not None
    figures = {**before.evaluation, "images": 40, "mean_loss": 0.5}
    payoff = measure_payoff(folder, replace(before, evaluation=figures), now, Problems())
    assert payoff is not None and payoff.source == "held-out images" and payoff.images == 40
    assert payoff.lift == pytest.approx(payoff.loss / 0.5)
    few = replace(before, evaluation={**figures, "images": 6})
    for nothing in (few, replace(before, evaluation=None)):
        assert measure_payoff(folder, nothing, now, Problems()) is None  # predicted in no unit


def test_what_was_predicted_is_compared_with_where_it_has_a_unit(
    done: Project, pool: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rest = set(read_labels(labels)), unlabeled(pool, labels)
    add(labels, rest[:12])
    now = done.open_labels()
    folder, summary = done.cycles / "001", read_summaries(done.cycles)[0]
    write_picks(folder, rest[:12], [])
    manifest = replace(read_manifest(folder / "model.onnx"), unit=LossUnit(name="nats"))
    monkeypatch.setattr(pick_payoff, "read_manifest", lambda _: manifest)
    payoff = measure_payoff(folder, replace(summary, evaluation=None), now, Problems())
    scores = ScoresFolder(folder / "scores")
    unlabeled_then = [id not in before for id in scores.column("id").tolist()]
    assert payoff is not None and payoff.images == sum(unlabeled_then)
    mean = scores.column("loss")[unlabeled_then].mean()
    assert payoff.random_loss == pytest.approx(mean) and "as predicted" in str(payoff)


def test_random_images_of_new_classes_are_not_compared_with(
    done: Project, pool: Path, labels: Path
) -> None:
    now, rest = labeled(done, pool, labels)
    folder, before = done.cycles / "001", read_summaries(done.cycles)[0]
    write_picks(folder, rest[:12], rest[12:24])
    new = [item.id in rest[12:20] for item in now.items]  # 8 of the 12, which have no loss
    names = ["new" if each else label for each, label in zip(new, now.labels)]
    now = LabeledSet(now.items, names, now.origin)
    assert before.evaluation is not None
    held_out = {**before.evaluation, "images": 40, "unseen": 25, "mean_loss": 0.5}
    payoff = measure_payoff(folder, replace(before, evaluation=held_out), now, Problems())
    assert payoff is not None and (payoff.source, payoff.images) == ("held-out images", 15)
    few = {**held_out, "unseen": 31}
    assert measure_payoff(folder, replace(before, evaluation=few), now, Problems()) is None


def test_few_labeled_picks_say_nothing(done: Project, pool: Path, labels: Path) -> None:
    add(labels, selected(done.cycles / "001"))  # 5
    now, before = done.open_labels(), read_summaries(done.cycles)[0]
    assert measure_payoff(done.cycles / "001", before, now, Problems()) is None


@pytest.mark.parametrize("name", ["checkpoint.pt", SELECTED])
def test_a_cycle_whose_files_are_gone_is_noted(
    done: Project, pool: Path, labels: Path, name: str
) -> None:
    now, rest = labeled(done, pool, labels)
    folder, problems = done.cycles / "001", Problems()
    write_picks(folder, rest[:12], [])
    (folder / name).unlink()
    assert measure_payoff(folder, read_summaries(done.cycles)[0], now, problems) is None
    (note,) = problems.notes
    assert "cannot be measured" in note and name in note


def test_a_payoff_is_said_in_a_line() -> None:
    payoff = Payoff(
        cycle=3, picks=20, unmeasured=0, loss=0.5, metric_name="accuracy", metric=None,
        images=30, random_loss=0.25,
        random_metric=None, source="random images", lift=2.0, interval=None,
    )  # fmt: skip
    assert str(payoff) == (
        "the 20 labeled picks of cycle 3 had 0.5 loss under the model that picked them, 30 random "
        "images 0.25: lift 2.000"
    )
    assert np.isfinite(payoff.lift)


def test_a_cycle_says_what_the_picks_before_it_were_worth(
    done: Project, pool: Path, labels: Path
) -> None:
    rest = unlabeled(pool, labels)
    write_picks(done.cycles / "001", rest[:10], rest[10:20])
    add(labels, rest[:20])
    said: list[str] = []
    summary = next_cycle(done, said.append).summary
    assert summary.lift.value and summary.trust["payoff"]["picks"] == 10
    (line,) = [line for line in said if "had" in line and "lift" in line]
    assert line in summary.trust_lines
    page = (done.cycles / "002/report.html").read_text()
    assert line[1:] in page and "Do the picks pay" in page
