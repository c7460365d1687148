"""Interrupted cycles, and what changes between cycles."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lloss.errors import DivergedError, InterruptedRunError, ProjectError, SelectionError
from lloss.manifest import read_manifest
from lloss.project import cycle_model
from lloss.project.cycle import next_cycle
from lloss.project.project import Project
from lloss.training.checkpoint import load_checkpoint
from lloss.training.trainer import Trainer

from .cycle_steps import STEPS, add, change, selected, undo


@pytest.mark.parametrize("step", ["train", "export_onnx"])
def test_a_diverged_cycle_names_the_settings_to_change(
    done: Project, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo(done, "cycle_model.export_onnx")

    def diverge(*_: object, **__: object) -> None:
        raise DivergedError("training diverged: lower --lr")

    monkeypatch.setattr(cycle_model, step, diverge)
    with pytest.raises(DivergedError, match=r"lower --lr\. Change .* \[train\] ") as refused:
        next_cycle(done)
    assert str(refused.value).endswith(
        f"{done.root / 'lloss.toml'}, remove {done.cycles / '001'} and run the same command again"
    )


def test_without_new_labels_nothing_is_done(done: Project, labels: Path) -> None:
    def files() -> dict[Path, int]:
        paths = [path for path in done.root.rglob("*") if path.name != ".lock"]
        return {path: path.stat().st_mtime_ns for path in paths}

    before = files()
    labels.write_text(labels.read_text() + "\n")  # the same rows in other bytes
    outcome = next_cycle(done)
    assert not outcome.fresh and outcome.folder.name == "001" and files() == before


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_cycle_resumes_at_that_step(
    done: Project, labels: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first = selected(done.cycles / "001")
    undo(done, step)
    with monkeypatch.context() as patch:
        patch.setattr(f"lloss.project.{step}", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next_cycle(done)
    add(labels, first[:1])  # the cycle keeps its labels, but does not select a new one again
    outcome = next_cycle(done)
    assert outcome.folder.name == "001" and outcome.summary.labeled == 24
    again = selected(outcome.folder)
    assert first[0] not in again and set(first[1:]) & set(again)


def test_an_interrupted_training_gives_the_same_selection(
    project: Project, done_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, steps = Trainer.advance, iter(range(99))

    def interrupt(self: Trainer) -> dict[str, float] | None:
        if next(steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupt)
        with pytest.raises(InterruptedRunError, match="cycle 001 was stopped in training"):
            next_cycle(project)
    assert selected(next_cycle(project).folder) == selected(
        done_template / "project" / "cycles" / "001"
    )


def test_sigterm_ends_any_step_in_a_line_and_the_same_command_goes_on(
    done: Project, done_template: Path
) -> None:
    folder = undo(done, "cycle_model.export_onnx")
    code = (
        "import os, signal, sys; from lloss.cli.main import main; from lloss.files import "
        "atomic_write; from lloss.project import cycle_model\n"
        "def stop(checkpoint, path, *_):\n"
        "    with atomic_write(path) as aside:\n"
        "        aside.write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "cycle_model.export_onnx = stop; main(['next', sys.argv[1]])"
    )
    command = [sys.executable, "-c", code, str(done.root)]
    stopped = subprocess.run(command, capture_output=True, text=True, check=False)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.splitlines()[-1] == "lloss: interrupted"
    assert "Traceback" not in stopped.stderr and not list(folder.glob(".*"))
    assert selected(next_cycle(done).folder) == selected(done_template / "project/cycles/001")


def test_a_removed_checkpoint_is_trained_measured_and_exported_again(done: Project) -> None:
    folder = undo(done, "cycle_choice.select")
    first = load_checkpoint(folder).sha256
    (folder / "checkpoint.pt").unlink()
    shutil.rmtree(folder / "scores")
    next_cycle(change(done, "[train]", "[train]\nseed = 7"))
    second = load_checkpoint(folder).sha256
    manifest = read_manifest(folder / "model.onnx")
    assert second != first and manifest.provenance["checkpoint_sha256"] == second


def test_settings_changed_after_training_apply_from_the_next_cycle(
    done: Project, labels: Path
) -> None:
    undo(done, "cycle_choice.select")
    said: list[str] = []
    changed = change(change(done, "epochs = 2", "epochs = 1"), "holdout = 0.2", "holdout = 0")
    first = next_cycle(changed, said.append)
    remedy = f"to use them now, remove {done.cycles / '001'}"
    assert f"the changed settings apply from the next cycle on; {remedy}" in said
    assert load_checkpoint(first.folder).settings.epochs == 2
    assert first.summary.labeled == 24 and first.summary.evaluation is not None
    add(labels, selected(first.folder))
    second = next_cycle(changed, said.append)
    assert load_checkpoint(second.folder).settings.epochs == 1
    assert second.summary.labeled == 35 and second.summary.evaluation is None


def test_a_cycle_of_an_earlier_version_resumes(done: Project) -> None:
    folder = undo(done, "cycle_model.export_onnx")
    content = json.loads((folder / "cycle.json").read_text())
    del content["project"]["precision"]
    del content["train"]["keep_embedding"]
    (folder / "cycle.json").write_text(json.dumps(content))
    said: list[str] = []
    assert next_cycle(done, said.append).summary.precision == "fp32"
    assert not any("changed settings" in line for line in said)


def test_a_k_larger_than_what_is_left_can_be_corrected(done: Project) -> None:
    folder = undo(done, "cycle_choice.select")
    too_many = change(done, "k = 5 ", "k = 500 ")
    with pytest.raises(SelectionError, match="k = 500: only 31 left to label"):
        next_cycle(too_many)
    assert not (folder / "selected.csv").exists()
    assert next_cycle(too_many, at_most=True).summary.selected == 30


@pytest.mark.parametrize("warm", [False, True])
def test_a_warm_start_is_opt_in(
    done: Project, labels: Path, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    starts: list[object] = []

    def stop(*_: object, warm_start: object, **__: object) -> None:
        starts.append(warm_start)
        raise InterruptedRunError("stopped")

    monkeypatch.setattr(cycle_model, "train", stop)
    add(labels, selected(done.cycles / "001"))
    with pytest.raises(InterruptedRunError):
        next_cycle(change(done, "k = 5 ", f"warm_start = {str(warm).lower()}\nk = 5 "))
    assert starts == [done.cycles / "001" if warm else None]


@pytest.mark.parametrize("content", ["x", "{", "[]"])
@pytest.mark.parametrize("name", ["cycle.json", "labels.csv"])
def test_labels_that_cannot_be_compared_with_damaged_ones_are_noted(
    done: Project, name: str, content: str
) -> None:
    (done.cycles / "001" / name).write_text(content)
    said: list[str] = []
    assert not next_cycle(done, said.append).fresh
    assert any("is damaged or missing: changes of labels" in line for line in said)


def test_damaged_and_missing_cycles_are_named(done: Project) -> None:
    (done.cycles / "003").mkdir()
    with pytest.raises(ProjectError, match="cycle 002 is not complete, but cycle 003 exists"):
        next_cycle(done)
    (done.cycles / "001" / "summary.json").write_text("{")
    with pytest.raises(ProjectError, match=r"summary\.json: is damaged"):
        next_cycle(done)


def test_doubts_about_the_network_reach_summary_and_report(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the cycle was interrupted after the training that raised them."""
    doubt = "its predictions are not to be relied on"
    monkeypatch.setattr("lloss.training.run.doubts", lambda *_: [doubt])
    with monkeypatch.context() as patch:
        patch.setattr(cycle_model, "evaluate_checkpoint", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next_cycle(project)
    said: list[str] = []
    outcome = next_cycle(project, said.append)
    assert doubt in outcome.summary.warnings and f"note: {doubt}" in said
    assert doubt[1:] in (outcome.folder / "report.html").read_text()
