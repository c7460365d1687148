"""Copies of one project, without and with a finished cycle."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lloss.project.create import create_project
from lloss.project.cycle import next_cycle
from lloss.project.project import Project
from lloss.project.project_file import load_project

from .cycle_steps import TRAIN, add


@pytest.fixture(scope="session")
def new_template(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool, ``labels.csv`` of every second image, and a project of them without a cycle."""
    root = tmp_path_factory.mktemp("templates") / "new"
    pool = root / "pool"
    pool.mkdir(parents=True)
    for path in photos.rglob("*.png"):
        shutil.copy(path, pool / path.relative_to(photos).as_posix().replace("/", "-"))
    names = sorted(path.name for path in pool.iterdir())
    (pool / "broken.png").write_bytes(b"")
    labels = root / "labels.csv"
    labels.write_text("id,label\n")
    add(labels, names[::2])
    values = {"pool": str(pool), "labels": str(labels), "k": 5, "holdout": 0.2}
    create_project(root / "project", values, TRAIN)
    return root


@pytest.fixture(scope="session")
def done_template(new_template: Path) -> Path:
    """The same after one cycle."""
    root = new_template.parent / "done"
    shutil.copytree(new_template, root)
    next_cycle(load_project(root / "project"))
    return root


@pytest.fixture
def project(new_template: Path, tmp_path: Path) -> Project:
    """A project without a cycle."""
    shutil.copytree(new_template, tmp_path / "copy")
    return load_project(tmp_path / "copy" / "project")


@pytest.fixture
def done(done_template: Path, tmp_path: Path) -> Project:
    """A project with one finished cycle."""
    shutil.copytree(done_template, tmp_path / "copy")
    run = tmp_path / "copy/project/cycles/001/scores/run.json"  # contains the pool's path
    run.write_text(run.read_text().replace(str(done_template), str(tmp_path / "copy")))
    return load_project(tmp_path / "copy" / "project")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return tmp_path / "copy" / "pool"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "copy" / "labels.csv"
