"""What a cycle trains on, selects and writes."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lloss.export import automatic_precision

from lloss.annotations import Problems
from lloss.annotations.label_csv import read_labels
from lloss.errors import SelectionError
from lloss.manifest import Manifest, read_manifest
from lloss.project import cycle as cycle_module
from lloss.project import cycle_choice, cycle_model
from lloss.project.create import create_project
from lloss.project.cycle import next_cycle
from lloss.project.project import Project
from lloss.scores.scores_folder import ScoresFolder
from lloss.statistics.loss_distribution import LossReference
from lloss.text.markup import loss
from lloss.training import head_training, trained_prints
from lloss.training.checkpoint import load_checkpoint
from lloss.training.evaluation import evaluate_checkpoint

from ..command_line import call
from .cycle_steps import TRAIN, add, change, selected, undo, unlabeled


@pytest.mark.parametrize(("better", "column"), [(False, "number"), (True, "rank"), (None, "rank")])
def test_picks_are_called_ranked_only_if_they_are(
    done: Project, monkeypatch: pytest.MonkeyPatch, better: bool | None, column: str
) -> None:
    undo(done, "cycle_choice.select")
    monkeypatch.setattr(cycle_module, "ranked", lambda _: better)
    monkeypatch.setattr(cycle_module, "tie_note", lambda *_: "")
    outcome = next_cycle(done)
    with (outcome.folder / "selected.csv").open() as file:
        assert [row[column] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5"]
    assert outcome.summary.ranked is better


def test_images_that_could_not_be_selected_are_counted_in_the_summary(
    done: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo(done, "cycle_choice.select")
    real, said = cycle_choice.select, list[str]()
    monkeypatch.setattr(
        cycle_choice,
        "select",
        lambda *given: dataclasses.replace(real(*given), unscored=2, distinct=1, candidates=9),
    )
    warnings = next_cycle(done, said.append).summary.warnings
    (line,) = [line for line in warnings if "could not be selected" in line]
    assert line.endswith("2 without a finite score") and f"warning: {line}" in said
    (line,) = [line for line in warnings if line.startswith("the 9 images compared have only 1 ")]
    assert f"warning: {line}" in said


def test_picks_that_got_no_label_are_said_once_others_have_one(done: Project, labels: Path) -> None:
    picks = selected(done.cycles / "001")
    add(labels, picks[:3])
    said: list[str] = []
    summary = next_cycle(done, said.append).summary
    (line,) = (line for line in said if "have no label" in line)
    assert f"2 of the 5 images that cycle 001 selected have no label ({picks[3]!r}" in line
    assert line in summary.notes


def test_a_frozen_network_stays_and_each_cycle_trains_the_head_again(
    done: Project, labels: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_training, "STEPS", 100)
    network = load_checkpoint(done.cycles / "001").network().network
    torch.save(network.state_dict(), tmp_path / "network.pt")
    train = {**TRAIN, "freeze": True, "weights": str(tmp_path / "network.pt")}
    values = {"pool": str(pool), "labels": str(labels), "k": 5, "holdout": 0.2}
    project, said, states = create_project(tmp_path / "frozen", values, train), list[str](), []
    for _ in range(2):
        outcome = next_cycle(project, said.append)
        add(labels, selected(outcome.folder))
        states.append(load_checkpoint(outcome.folder).state["model"])
        assert outcome.summary.evaluation and "the head alone" in (
            outcome.folder / "report.html"
        ).read_text(encoding="utf-8")
    changed = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert "head.output.weight" in changed  # those of maps that are not read stay 0
    assert all(name.startswith("head.") for name in changed)
    assert all(
        torch.equal(states[0][f"network.{name}"], value)
        for name, value in network.state_dict().items()
    )
    assert sum("by 5-fold cross-validation: accuracy" in line for line in said) == 2


def test_a_project_of_few_labels_is_measured_by_cross_validation(
    project: Project, pool: Path, labels: Path, tmp_path: Path
) -> None:
    values = {"pool": str(pool), "labels": str(labels), "k": 5, "by": "auto"}
    few, said = create_project(tmp_path / "few", values, {**TRAIN, "folds": -1}), list[str]()
    outcome = next_cycle(few, said.append)
    text, summary = "\n".join(said), outcome.summary
    assert "30 labels are too few to hold some out" in text
    assert "automatic: folds = 5 (fewer than 50 images are held out" in text
    assert "measure on 30 labeled images by 5-fold cross-validation: accuracy" in text
    assert "entropy" in text and "neither the model" not in text
    assert summary.evaluation is None and summary.ranking == summary.cross_validation
    assert summary.metric.value is not None and summary.metric.interval is not None
    assert summary.measured_on == 30 and summary.ranked is not None
    assert summary.choice and "not measured" not in summary.choice["reason"]
    report = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert report.count("by cross-validation on 30 images") == 2
    assert "trained without it" in report and "no labeled images to measure on" not in report
    unit = read_manifest(outcome.folder / "model.onnx").unit
    assert unit is not None and unit.images == 30


@pytest.mark.parametrize("by", ["loss", "entropy"])
def test_the_report_shows_predicted_losses_whatever_decides(
    project: Project, pool: Path, labels: Path, tmp_path: Path, by: str
) -> None:
    values = {"pool": str(pool), "labels": str(labels), "k": 5, "strategy": "top", "by": by}
    outcome = next_cycle(create_project(tmp_path / by, values, TRAIN))
    table = ScoresFolder(outcome.folder / "scores").opened()
    rows = [row for batch in table.scan(["id", "loss", "entropy"]) for row in batch.to_pylist()]
    of = {row["id"]: row for row in rows}
    with (outcome.folder / "selected.csv").open() as file:
        picked = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert picked == pytest.approx({id: of[id][by] for id in picked}, rel=1e-5)
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r'class="rank">#\d+</span><b>(.*?)</b>', page)
    assert shown == [loss(of[id]["loss"]) for id in picked]


def test_enough_held_out_images_leave_a_cross_validation_out(
    project: Project,
    pool: Path,
    labels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cycle_model, "MEASURABLE", 6)
    values = {"pool": str(pool), "labels": str(labels), "k": 5, "holdout": 0.2}
    held = create_project(tmp_path / "held", values, {**TRAIN, "folds": -1})
    summary = next_cycle(held).summary
    assert summary.held_out == 6 and summary.cross_validation is None
    monkeypatch.setattr(cycle_model, "MEASURABLE", 7)
    shutil.rmtree(held.cycles / "001")
    summary = next_cycle(held).summary
    assert summary.metric.value == (summary.evaluation or {})["accuracy"]
    assert summary.ranking == summary.cross_validation and summary.ranking["images"] == 24


def test_a_second_cycle_selects_other_images_and_writes_every_file(
    done: Project, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, small = list[int](), trained_prints.middles_of
    monkeypatch.setattr(
        trained_prints, "middles_of", lambda items: decoded.append(len(items)) or small(items)
    )
    first = selected(done.cycles / "001")
    add(labels, first)
    done = change(done, "lr = 0.05", "lr = 0.04")
    said = list[str]()
    second = next_cycle(done, said.append)
    assert "before was trained with lr = 0.05 (now 0.04)" in "\n".join(said)
    assert sum(decoded) == 5  # the others are known from the cycle before
    again = selected(second.folder)
    assert len({*first, *again}) == 10 and not set(again) & set(read_labels(labels))
    assert second.folder.name == "002" and second.summary.labeled == 24 + 5
    assert sorted(p.name for p in second.folder.iterdir()) == [
        "checkpoint.pt", "cycle.json", "evaluation.json", "labels.csv", "metrics.jsonl",
        "model.onnx", "prints.npz", "report.html", "scores", "selected.csv", "summary.json",
    ]  # fmt: skip
    page = (second.folder / "report.html").read_text()
    assert all(id in page for id in again)
    assert second.summary.skipped == 1
    held = read_labels(done.root / "holdout.csv")  # drawn once, and never trained on
    assert len(held) == 6 and set(held.values()) == {"bright", "dark", "red"}
    training, held_out = done.split(done.open_labels())
    assert held_out is not None and {item.id for item in held_out.items} == set(held)
    assert not {item.id for item in training.items} & set(held)
    figures = json.loads((second.folder / "evaluation.json").read_text())
    checkpoint = load_checkpoint(second.folder)
    assert (figures["near_copies"], figures["near_copies_of"]) == (0, 6)
    assert evaluate_checkpoint(checkpoint, held_out).as_dict() == figures


def test_the_model_stores_the_losses_of_unlabeled_images_if_there_are_enough(
    done: Project, pool: Path, labels: Path
) -> None:
    model = undo(done, "cycle_model.export_onnx") / "model.onnx"
    for number in range(4):
        for path in list(pool.glob("*-0*.png")):
            shutil.copy(path, pool / f"more{number}-{path.name}")
    folder = next_cycle(done).folder
    reference = read_manifest(model).reference
    scores = ScoresFolder(folder / "scores")
    rows = [id not in read_labels(labels) for id in scores.column("id").tolist()]
    losses = scores.column("loss")[rows]
    assert reference is not None and reference.images == len(losses) > 200
    wanted = LossReference.of(np.asarray(losses, np.float32), reference.pool)
    np.testing.assert_allclose(reference.quantiles, wanted.quantiles, atol=1e-4)


def test_test_labels_of_the_pool_are_neither_trained_on_nor_selected(
    project: Project, pool: Path, labels: Path, tmp_path: Path
) -> None:
    rest = unlabeled(pool, labels)
    tested = tmp_path / "test.csv"
    tested.write_text("id,label\n")
    add(tested, rest[:18])
    tested.write_text(tested.read_text() + f"{rest[18]},unicorn\n{rest[19]},unicorn\n")
    values = {"pool": str(pool), "labels": str(labels), "k": 10, "test_labels": str(tested)}
    said: list[str] = []
    project = create_project(tmp_path / "p", values, TRAIN)
    outcome = next_cycle(project, said.append)
    assert sorted(selected(outcome.folder)) == rest[20:]  # the ten that are left
    assert outcome.summary.labeled == len(read_labels(labels))
    figures = outcome.summary.evaluation  # a class that only the test set has counts as wrong
    assert figures is not None and (figures["images"], figures["unseen"]) == (20, 2)
    assert figures["accuracy"] <= 0.9
    assert any("(2 of unknown classes)" in line for line in said)
    add(labels, rest[:1])
    problems = Problems()
    training, _ = project.split(project.open_labels(), problems)
    assert rest[0] not in {item.id for item in training.items}
    assert any("1 of 31 labeled images is in the test set too" in n for n in problems.notes)


def test_a_test_folder_inside_the_pool_is_neither_scored_nor_trained_on(
    project: Project, pool: Path, labels: Path, tmp_path: Path
) -> None:
    labeled, rest = list(read_labels(labels)), unlabeled(pool, labels)
    for name in (*labeled[:3], *rest[:6]):
        copy = pool / "test" / name.split("-")[0] / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pool / name, copy)
    values = {"pool": str(pool), "labels": str(labels), "test": str(pool / "test"), "k": 2}
    problems = Problems()
    created = create_project(tmp_path / "p", values, TRAIN, problems)
    assert any("3 of 30 labeled images are in the test set too" in line for line in problems.notes)
    said: list[str] = []
    outcome = next_cycle(created, said.append)
    assert outcome.summary.labeled == len(labeled) - 3
    scored = set(ScoresFolder(outcome.folder / "scores").column("id").tolist())
    assert scored == {*rest[6:], *labeled[3:]}  # labeled ones too: picks are to be unlike them
    assert set(selected(outcome.folder)) <= set(rest[6:])
    assert outcome.summary.scored == len(rest) - 6
    assert len(said) == len(set(said)) and set(problems.notes) & set(said)
    assert any("18 images of the pool are in the test set" in line for line in said)


def test_a_pool_all_labeled_has_nothing_to_select(
    pool: Path, labels: Path, done: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(labels, unlabeled(pool, labels))
    with pytest.raises(SelectionError, match="k = 5: only 1 left to label in"):
        next_cycle(done)
    said = list[str]()
    with pytest.raises(SelectionError, match=r"k = 5: 0 of 1 images left .* can be read"):
        next_cycle(done, said.append, at_most=True)
    assert not any("train" in line for line in said)
    shutil.rmtree(done.cycles / "002")
    (pool / "broken.png").unlink()
    words = ["init", tmp_path / "new", "--pool", pool, "--labels", labels]
    text = call(capsys, *words, "--model", TRAIN["model"], code=0).text
    assert "k = 15 images to label per cycle: a quarter of the 60 labels" in text
    assert f"none is left to label in {pool}; add images to the pool before lloss next" in text
    assert "60 labeled images of 3 classes; now run: lloss next" in text
    for project in (done.root, tmp_path / "new"):
        found = call(capsys, "next", project)
        assert found.code == 2 and "train resnet" not in found.text
        last = found.err.splitlines()[-1]
        assert "every image is labeled or to measure on, none is left to select; add" in last
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 1


class _Int8:
    """What AutomaticPrecision does where int8 is faster, without its minutes."""

    given: ClassVar[dict[str, Any]] = {}

    def __init__(self, **given: Any) -> None:
        self.given.update(given)

    def prepare(self) -> None:
        pass

    def run(self, path: Path, manifest: Manifest, trained: object, log: Any) -> Manifest:
        log("precision: int8, 2.00× as fast as fp32")
        return dataclasses.replace(manifest, precision="int8")


def test_a_cycle_chooses_its_precision_on_unlabeled_images_and_records_it(
    done: Project, pool: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads((done.cycles / "001/summary.json").read_text())["precision"] == "fp32"
    changed = change(done, "k = 5", 'precision = "auto"\nk = 5')
    add(labels, selected(done.cycles / "001"))
    monkeypatch.setattr(cycle_model, "AutomaticPrecision", _Int8)
    said: list[str] = []
    outcome = next_cycle(changed, said.append)
    assert outcome.summary.precision == "int8" and "precision: int8, 2.00× as fast as fp32" in said
    assert set(_Int8.given["pool"].ids()) == {*unlabeled(pool, labels), "broken.png"}
    run = json.loads((outcome.folder / "scores/run.json").read_text())
    assert run["precision"] == "int8" and "int8" in (outcome.folder / "report.html").read_text()


def test_a_small_pool_is_scored_in_fp32_with_a_line(
    done: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo(done, "cycle_model.export_onnx")
    start = done.cycles / "001/cycle.json"
    content = json.loads(start.read_text())
    content["project"]["precision"] = "auto"
    start.write_text(json.dumps(content))
    monkeypatch.setattr(automatic_precision, "fastest_precision", lambda: ("int8", ""))
    said: list[str] = []
    assert next_cycle(done, said.append).summary.precision == "fp32"
    (line,) = [line for line in said if line.startswith("precision")]
    assert line == (
        "precision: fp32; 31 images are scored before int8 could be judged, from 50,000 on it is "
        "tried"
    )


def test_each_cycle_decides_for_its_own_labels_and_shows_it(done: Project, labels: Path) -> None:
    changed = change(done, "batch_size = 8\n", "")
    add(labels, selected(done.cycles / "001"))
    said: list[str] = []
    second = next_cycle(changed, said.append)
    assert "automatic: batch_size = 29 (all images)" in said
    assert second.summary.training["batch_size"] == 29
    assert second.summary.training == load_checkpoint(second.folder).settings.as_dict()
    start = json.loads((second.folder / "cycle.json").read_text())
    assert start["train"]["batch_size"] == 0  # still open, as in lloss.toml
    page = (second.folder / "report.html").read_text()
    assert "2 epochs of batches of 29, sgd at 0.05, 8 pixels, first weights none, seed 0" in page


def test_automatic_settings_of_a_cycle_that_did_not_record_them_are_not_compared(
    done: Project, labels: Path
) -> None:
    """As the summaries of earlier versions, this one lacks what was decided."""
    path = done.cycles / "001" / "summary.json"
    summary = json.loads(path.read_text())
    assert summary.pop("training")["optimizer"] == "sgd"
    path.write_text(json.dumps(summary))
    changed = change(done, "lr = 0.05", "lr = 0.04")
    add(labels, selected(done.cycles / "001"))
    said: list[str] = []
    next_cycle(changed, said.append)
    (line,) = (line for line in said if line.startswith("the cycle before was trained with"))
    assert "lr = 0.05 (now 0.04)" in line and "auto" not in line
