"""Undo, label and change cycles of projects in tests."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from lloss.annotations.label_csv import read_labels
from lloss.project.project import Project
from lloss.project.project_file import load_project

TRAIN = {
    "model": "resnet10-cifar-narrow",
    "size": 8,
    "hidden": 8,
    "epochs": 2,
    "batch_size": 8,
    "lr": 0.05,
    "amp": "off",
    "folds": 0,
}


STEPS = {
    "cycle_model.evaluate_checkpoint": "evaluation.json",
    "cycle_model.export_onnx": "model.onnx",
    "cycle.score_pool": "scores",
    "cycle_choice.select": "selected.csv",
    "cycle.write_report": "report.html",
    "cycle.asdict": "summary.json",
}
"""What each step of a cycle after training calls, of ``lloss.project``, and what it writes."""


def undo(project: Project, step: str) -> Path:
    """Remove what the first cycle wrote from a step on."""
    folder, names = project.cycles / "001", list(STEPS)
    for name in names[names.index(step) :]:
        path = folder / STEPS[name]
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return folder


def add(labels: Path, ids: list[str]) -> None:
    with labels.open("a") as file:
        file.writelines(f"{id},{id.split('-')[0]}\n" for id in ids)


def unlabeled(pool: Path, labels: Path) -> list[str]:
    names = {path.name for path in pool.iterdir()} - {"broken.png"}
    return sorted(names - set(read_labels(labels)))


def selected(folder: Path) -> list[str]:
    with (folder / "selected.csv").open() as file:
        return [row["id"] for row in csv.DictReader(file)]


def change(project: Project, old: str, new: str) -> Project:
    path = project.root / "lloss.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return load_project(project.root)
