"""Real processes of torchrun with gloo; what they compute is compared with one process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

import lloss
from lloss.cli.main import main
from lloss.data.class_labels import open_labeled
from lloss.errors import InterruptedRunError, SettingsError
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import load_checkpoint
from lloss.training.evaluation import evaluate_checkpoint
from lloss.training.process_group import store_of
from lloss.training.run import train
from lloss.training.run_folder import METRICS
from lloss.training.torchrun import CALL, ENDED
from lloss.training.trained_prints import PRINTS

from ..command_line import call
from ..conftest import TINY
from ..outside_networks import TwoStages
from ..torchrun_network import TROUBLE
from ..waiting import PATIENCE

# 60 images in batches of 15: the shares of two processes differ. In smaller batches this network
# makes of a change of 1e-7 in its weights one of 1e-4 in its losses, in one process too.
SETTINGS = TrainSettings(
    **TINY
    | {"batch_size": 15, "epochs": 3, "augment": "flip-crop", "gradient_stop": -1, "clip": 1.0}
)
# Batches of 6 and 7.
OWN = replace(SETTINGS, model="tests.torchrun_network:TroubledNet", batch_size=7)


def torchrun(
    *words: object, processes: int = 2, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as torchrun's users do, from the folder of the tests' modules."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "lloss", *map(str, words)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        timeout=PATIENCE,
    )


def options(settings: TrainSettings) -> list[str]:
    plain = TrainSettings().as_dict()
    given = {n: v for n, v in settings.as_dict().items() if v != plain[n] or n in TINY}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


def figures(run: Path) -> list[dict[str, float]]:
    lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
    found: list[dict[str, float]] = [json.loads(line) for line in lines]
    for each in found:
        del each["images_per_second"]
    return found


def assert_same(run: Path, other: Path) -> None:
    """Assert the same curve, to 1e-5, and the same weights, to what three epochs make of it."""
    for one, two in zip(figures(run), figures(other), strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    states = [load_checkpoint(each).state for each in (run, other)]
    assert [(s["epoch"], s["step"]) for s in states] == [(SETTINGS.epochs, 0)] * 2
    assert states[0]["model"].keys() == states[1]["model"].keys()
    for name, value in states[0]["model"].items():
        assert value.float().numpy() == pytest.approx(
            states[1]["model"][name].float().numpy(), abs=1e-4
        ), name


@pytest.fixture(scope="module")
def together(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    run = tmp_path_factory.mktemp("together") / "run"
    return run, torchrun("train", photos, "-o", run, *options(SETTINGS))


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the network of these tests, by one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    train(open_labeled(str(photos)), OWN, run)
    return run


def test_two_processes_give_the_loss_curve_of_one(
    together: tuple[Path, subprocess.CompletedProcess[str]], photos: Path, tmp_path: Path
) -> None:
    run, done = together
    assert done.returncode == 0, done.stderr
    train(open_labeled(str(photos)), SETTINGS, tmp_path / "one")
    assert_same(run, tmp_path / "one")


def test_one_process_speaks_and_writes(
    together: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, done = together
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint.pt", METRICS, PRINTS]
    said = [line for line in done.stdout.splitlines() if line]
    assert len(said) == 2
    assert said[0] == "train resnet10-cifar-narrow on 60 images of 3 classes"
    assert "3 epochs" in said[1]
    notes = [line for line in done.stderr.splitlines() if "2 processes" in line]
    assert notes == ["train in 2 processes, which share each batch"]
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_evaluation_repeats_and_drops_nothing(photos: Path, tmp_path: Path) -> None:
    """59 images in four batches of at most 16, so that each process has two."""
    settings = replace(OWN, size=256, epochs=1, batch_size=30)
    labeled = open_labeled(str(photos))
    checkpoint = train(labeled, settings, tmp_path / "run")
    expected = evaluate_checkpoint(checkpoint, labeled.take(range(59))).as_dict()
    names = [item.id for item in labeled.ordered().take(range(59)).items]
    table = tmp_path / "labels.csv"
    rows = [f"{name},{name.split('/')[0]}" for name in names]
    table.write_text("id,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    done = torchrun("evaluate", tmp_path / "run", photos, "--labels", table, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert found["images"] == 59
    assert found == json.loads(json.dumps(expected))
    assert done.stdout.count("ranking accuracy") == 1


def test_any_number_of_processes_goes_on_and_a_signal_to_one_stops_all(
    alone: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process, then two, then one: together they end where one that was never stopped does."""
    run, labeled = tmp_path / "run", open_labeled(str(photos))
    with monkeypatch.context() as patch:
        patch.setenv(TROUBLE, "0:13:SIGTERM")
        with pytest.raises(InterruptedRunError):
            train(labeled, OWN, run)
    trouble = {TROUBLE: "1:3:SIGTERM"}
    done = torchrun("train", photos, "-o", run, *options(OWN), "--resume", **trouble)
    assert done.returncode != 0
    assert done.stderr.count("lloss: stopped after 1 of 3 epochs") == 1
    exited = re.findall(r"rank +: 0 \(.*\n +exitcode +: (-?\d+)", done.stderr)
    assert exited == ["130"], "torchrun ended the leading process by a signal"
    state = load_checkpoint(run).state
    assert (state["epoch"], state["step"]) == (1, 7)
    train(labeled, OWN, run, resume=True)
    assert_same(run, alone)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("error", "lloss: process 1 of 2: a label that only this process has"),
        ("SIGKILL", "lloss: another process ended without a word"),
    ],
)
def test_trouble_of_one_process_is_said_once_and_ends_all(
    what: str, said: str, photos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = torchrun("train", photos, "-o", run, *options(OWN), **{TROUBLE: f"1:13:{what}"})
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("lloss: ")]
    assert [line[: len(said)] for line in lines] == [said]
    assert "lloss/training" not in done.stderr  # no traceback but that of torchrun
    assert len(figures(run)) == 1 and not list(run.glob(".*"))


def test_trouble_before_the_first_step_is_said_once(
    alone: Path, photos: Path, tmp_path: Path
) -> None:
    words = ["train", photos, "-o", tmp_path / "run", *options(OWN)]
    done = torchrun(*words, **{TROUBLE: "1:0:error"})
    lines = [line for line in done.stderr.splitlines() if line.startswith("lloss: ")]
    assert len(lines) == 1 and lines[0].startswith("lloss: process 1 of 2: model 'tests.torchrun")
    assert "lloss/training" not in done.stderr and not list(tmp_path.glob("run/*"))
    done = torchrun("evaluate", alone, photos, "-o", tmp_path, **{TROUBLE: "1:0:SIGKILL"})
    lines = [line for line in done.stderr.splitlines() if line.startswith("lloss: ")]
    assert len(lines) == 1 and lines[0].endswith("killed for want of memory; run it again")
    assert "lloss/training" not in done.stderr and not (tmp_path / "evaluation.json").exists()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], Any]]:
    """Make this process one of several, by rank and count, and return the store that they share."""
    server = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def become(rank: int, count: int = 2) -> Any:
        values = {
            "RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count,
            "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": server.port,
            "TORCHELASTIC_USE_AGENT_STORE": True,
        }  # fmt: skip
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))
        return distributed.PrefixStore("lloss-0", server)

    store_of.cache_clear()
    yield become
    store_of.cache_clear()


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (2, "next project", "lloss next: does not run in 2 processes; run it without torchrun"),
        (2, "score m.onnx p -o s", "lloss score: does not run in 2 processes"),
        (2, "train PHOTOS -o RUN --freeze", "freeze = True: trains a head in seconds, in one"),
        (2, "train PHOTOS -o RUN --compile", "compile = True: is not for several processes"),
        (2, "train PHOTOS -o RUN --folds 5", "folds = 5: cross-validation takes one process; tr"),
        (61, "train PHOTOS -o RUN --weights none", "batch_size = 60: cuts 60 images into batches"),
        (2, "train PHOTOS", "give labeled images and the run's folder"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line_and_the_others_end(
    environment: Callable[..., Any],
    count: int,
    words: str,
    said: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "_exit", sys.exit)
    store = environment(0, count)
    places = {"PHOTOS": photos, "RUN": tmp_path / "run"}
    result = call(capsys, *[places.get(word, word) for word in words.split()], code=2)
    assert said in result.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
    assert not store.check([CALL]) and store.get(ENDED) == b"2"
    environment(1, count)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2 and not capsys.readouterr().err


def test_fit_is_refused(environment: Callable[..., Any]) -> None:
    environment(0)
    model = lloss.attach(TwoStages(), classes=["a", "b", "c"], size=8)
    with pytest.raises(SettingsError, match="lloss.fit: does not run in 2 processes; start it"):
        lloss.fit(model, torch.zeros(4, 3, 8, 8), [0, 1, 2, 0])
