"""Whole simulations by the command line: interrupted, continued, refused."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lloss.cli.main import main
from lloss.simulation.frozen_learner import FrozenModel
from lloss.simulation.full_learner import FullModel
from lloss.simulation.results import CycleRow, read_picks, read_rows, read_settings
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training import head_training
from tests.waiting import until

BUDGET = ["--initial=12", "-k4", "--cycles=3", "--trials=2", "--pool-size=40", "--test=30%"]


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    """Train heads for a moment: nothing here depends on how well they do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(head_training, "STEPS", 5)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny network, as if they were trained."""
    settings = TrainSettings(model="resnet10-cifar-narrow", size=8, weights="none", hidden=8)
    torch.manual_seed(3)
    network = get_task("classification").network(settings, ["bright", "dark", "red"])
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(network.network.state_dict(), path)
    return path


def _options(photos: Path, weights: Path | str, out: Path, *more: str) -> list[str]:
    model = ["--model=resnet10-cifar-narrow", "--size=8", "--hidden=8", f"--weights={weights}"]
    return ["simulate", str(photos), *BUDGET, *model, "-j1", "-o", str(out), *more]


def _without_seconds(rows: list[CycleRow]) -> list[dict[str, Any]]:
    found = [{**vars(row), "seconds": set(row.seconds)} for row in rows]
    return sorted(
        found, key=lambda row: (row["scenario"], row["method"], row["trial"], row["cycle"])
    )


LOADED = 600.0
"""Seconds: three processes that import torch take long where others compute too."""

METHODS = "--methods=random,entropy,tod,bald,margin,learning-loss,herding,auto"


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory, photos: Path, weights: Path) -> Path:
    """The folder of a finished simulation on a frozen network."""
    out = tmp_path_factory.mktemp("frozen") / "out"
    main(_options(photos, weights, out, METHODS, "--scenario=balanced,redundant:4,junk:20%"))
    return out


def test_each_cycle_of_each_trial_is_a_row(frozen: Path) -> None:
    rows = read_rows(frozen)
    assert len(rows) == 8 * 3 * 2 * 3
    assert {(row.cycle, row.labeled) for row in rows} == {(0, 12), (1, 16), (2, 20)}
    for row in rows:
        assert next(iter(row.figures)) == "accuracy"
        assert {"macro accuracy", "worst class"} < row.figures.keys()
        assert (row.head is not None) == (row.method in ("learning-loss", "herding", "auto"))
        assert row.entropy is not None
        scored = {"score", "select"} if row.cycle < 2 else set()  # nothing is scored at the end
        assert row.seconds.keys() == {"train", "measure"} | scored
        assert bool(row.picks) == bool(row.choice) == bool(scored)


def test_methods_of_a_trial_start_alike_and_trials_differ(frozen: Path) -> None:
    first = {}
    for row in read_rows(frozen):
        if row.cycle == 0:
            first.setdefault((row.scenario, row.trial), set()).add(json.dumps(row.figures))
    assert all(len(figures) == 1 for figures in first.values())
    drawn = [{picks.ids for picks in read_picks(frozen) if picks.trial == n} for n in (0, 1)]
    assert not drawn[0] & drawn[1]


def test_images_are_picked_once(frozen: Path) -> None:
    ids: dict[tuple[str, str, int], list[str]] = {}
    for picks in read_picks(frozen):
        assert len(picks.ids) == 4
        ids.setdefault(picks.key, []).extend(picks.ids)
    assert all(len(each) == len(set(each)) == 8 for each in ids.values())


def test_jitters_and_junk_are_counted_among_the_picks(frozen: Path) -> None:
    rows = {(row.scenario, row.method, row.trial, row.cycle): row for row in read_rows(frozen)}
    seen = set[str]()
    for picks in read_picks(frozen):
        shares = rows[*picks.key, picks.cycle].picks
        junk = sum(id.endswith("#-1") for id in picks.ids) / 4
        assert shares["junk"] == junk
        if picks.scenario == "balanced":
            assert shares == {"duplicates": 0, "junk": 0}
        if shares["duplicates"]:
            seen.add(picks.scenario)
    assert seen == {"redundant:4"}


def test_the_settings_say_what_was_compared(frozen: Path, photos: Path) -> None:
    settings = read_settings(frozen)
    assert settings["scenarios"] == ["balanced", "redundant:4", "junk:20%"]
    assert settings["metrics"] == dict.fromkeys(settings["scenarios"], "accuracy")
    assert (settings["reference"], settings["default"]) == ("random", "auto")
    assert (settings["learner"], settings["data"]) == ("frozen", str(photos))


def test_a_report_is_written_at_the_end(frozen: Path) -> None:
    page = (frozen / "report.html").read_text("utf-8")
    assert "2 trials are too few to show any difference between 8 methods" in page
    assert {"curves.png", "results.csv"} < {path.name for path in frozen.iterdir()}


def test_a_finished_simulation_computes_nothing_more(
    frozen: Path, photos: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (frozen / "results.jsonl").read_bytes()
    main(_options(photos, weights, frozen, METHODS, "--scenario=balanced,redundant:4,junk:20%"))
    assert (frozen / "results.jsonl").read_bytes() == before
    assert "all 144 cycles are done" in capsys.readouterr().err


def test_features_are_computed_once_and_can_be_shared(
    tmp_path: Path, photos: Path, weights: Path
) -> None:
    for out in ("one", "two"):
        shared = f"--features={tmp_path / 'shared'}"
        main(_options(photos, weights, tmp_path / out, "--methods=random", shared))
    assert len(list((tmp_path / "shared").glob("*/block-*.npy"))) == 1
    one, two = (_without_seconds(read_rows(tmp_path / out)) for out in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_an_interrupted_simulation_ends_with_the_same_rows(
    tmp_path: Path, photos: Path, weights: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--methods=tod,herding"]
    main(_options(photos, weights, tmp_path / "whole", *options))
    from lloss.simulation.results import ResultsWriter

    write = ResultsWriter.write

    def interrupted(self: ResultsWriter, row: CycleRow, picks: Any) -> None:
        if len(read_rows(self.out)) == stop:
            raise KeyboardInterrupt
        write(self, row, picks)

    with monkeypatch.context() as patched:
        patched.setattr(ResultsWriter, "write", interrupted)
        with pytest.raises(SystemExit) as ended:
            main(_options(photos, weights, tmp_path / "out", *options))
    assert ended.value.code == 130
    assert len(read_rows(tmp_path / "out")) == stop
    main(_options(photos, weights, tmp_path / "out", *options))
    assert _without_seconds(read_rows(tmp_path / "out")) == _without_seconds(
        read_rows(tmp_path / "whole")
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_killed_simulation_leaves_no_process_and_another_continues_it(
    tmp_path: Path, photos: Path, weights: Path
) -> None:
    options = _options(photos, weights, tmp_path / "out", "--methods=random,entropy")
    command = [sys.executable, "-m", "lloss", *options, "-j2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: len(read_rows(tmp_path / "out")) >= 2 or process.poll() is not None, LOADED)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = children.read_text(encoding="ascii").split() if process.poll() is None else []
    finally:
        process.kill()
        process.wait()
    until(lambda: not any(_running(worker) for worker in workers), LOADED)
    main(options)
    main(_options(photos, weights, tmp_path / "whole", "--methods=random,entropy"))
    assert _without_seconds(read_rows(tmp_path / "out")) == _without_seconds(
        read_rows(tmp_path / "whole")
    )


@pytest.mark.parametrize(("name", "processes"), [("SIGTERM", "-j2"), ("SIGINT", "-j1")])
def test_a_signal_ends_it_in_a_line(
    tmp_path: Path, photos: Path, weights: Path, name: str, processes: str
) -> None:
    out = tmp_path / "out"
    options = _options(photos, weights, out, "--methods=random", "--trials=500", processes)
    command = [sys.executable, "-m", "lloss", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until(lambda: len(read_rows(out)) >= 2 or process.poll() is not None, LOADED)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=LOADED)
    kept = len(read_rows(out))
    assert process.returncode == 130 and 2 <= kept < 1500
    assert said.splitlines()[-1] == (
        f"lloss: {out}: interrupted; {kept} of 1500 cycles and the features computed so far are "
        "kept; run the same command to continue"
    )
    assert "Traceback" not in said


def _running(pid: str) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            != "Z"
        )
    except OSError:
        return False


def test_full_training_simulates_any_task(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "out"
    methods = "--methods=random,learning-loss,herding,tod,auto"
    options = [methods, "--epochs=1", "--trials=1", "--amp=off"]
    main(_options(photos, "none", out, *options, "--scenario=redundant:2"))
    rows = read_rows(out)
    assert len(rows) == 15 and read_settings(out)["learner"] == "full"
    assert {row.method: row.head is not None for row in rows} == {
        "random": False, "learning-loss": True, "herding": True, "tod": False, "auto": True,
    }  # fmt: skip


@pytest.mark.parametrize("model", [FrozenModel, FullModel])
def test_losses_of_picks_are_those_of_their_labels(
    tmp_path: Path, photos: Path, weights: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, counts = model.losses, list[int]()

    def checked(self: Any, rows: Any, labels: Any) -> Any:
        found, shares = losses(self, rows, labels), self.columns(["probabilities"])["probabilities"]
        numbers = [["bright", "dark", "red"].index(label) for label in labels]
        np.testing.assert_allclose(found, -np.log(shares[rows, numbers]), rtol=1e-3, atol=1e-5)
        counts.append(len(rows))
        return found

    monkeypatch.setattr(model, "losses", checked)
    learner = "--frozen" if model is FrozenModel else "--full"
    options = ["--methods=auto", "--scenario=noise:50%", "--trials=1", "-k10", "--cycles=2"]
    main(_options(photos, weights, tmp_path, *options, learner, "--epochs=1", "--amp=off"))
    (picks,) = read_picks(tmp_path)
    assert counts == [10, 28] and picks.lift is None  # coverage: the picks had no weights
    first, last = read_rows(tmp_path)
    assert first.picks["lift"] > 0 and "lift" not in last.picks


def test_each_scenario_is_trained_on_its_own_labels(tmp_path: Path, photos: Path) -> None:
    options = ["--methods=random", "--epochs=3", "--amp=off", "--scenario=balanced,noise:50%"]
    main(_options(photos, "none", tmp_path / "both", *options))
    both = read_rows(tmp_path / "both")
    for scenario in ("balanced", "noise:50%"):
        out = tmp_path / scenario
        main(_options(photos, "none", out, *options[:-1], f"--scenario={scenario}"))
        alone = [row for row in both if row.scenario == scenario]
        assert _without_seconds(read_rows(out)) == _without_seconds(alone)


def test_a_test_set_of_other_classes_is_refused(
    tmp_path: Path, photos: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bright", "green"):
        (tmp_path / "test" / name).mkdir(parents=True)
        shutil.copy(photos / "bright" / "000.png", tmp_path / "test" / name)
    with pytest.raises(SystemExit):
        main(_options(photos, weights, tmp_path / "out", f"--test={tmp_path / 'test'}"))
    assert re.search("shows classes that no image of .* shows: green;", capsys.readouterr().err)


def test_classes_that_nothing_measures_are_said(
    tmp_path: Path, photos: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bright", "dark"):
        shutil.copytree(photos / name, tmp_path / "test" / name)
    options = ["--methods=random", "--frozen", "--lr=0.1", f"--test={tmp_path / 'test'}"]
    main(_options(photos, weights, tmp_path / "out", *options))
    said = capsys.readouterr().err
    assert re.search(r"shows no image of 1 of 3 classes \(red\): figures, macro accuracy", said)
    assert "warning: --lr: not read, since the network is frozen; choose --full" in said
    with pytest.raises(SystemExit):
        main(_options(photos, weights, tmp_path / "rare", *options, "--scenario=rare:red:5%"))
    assert "the test set has no image of 'red'" in capsys.readouterr().err


@pytest.mark.parametrize("learner", ["--frozen", "--full"])
def test_test_images_in_the_data_are_warned_of(
    tmp_path: Path, photos: Path, weights: Path, learner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--methods=random", "--epochs=1", learner, f"--test={photos}"]
    main(_options(photos, weights, tmp_path / "out", *options))
    assert "60 of 60 images to measure on are in" in capsys.readouterr().err


def test_an_error_in_a_process_is_said_in_a_line(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--methods=bald,random", "--full", "--epochs=1", "-j2"]
    with pytest.raises(SystemExit) as ended:
        main(_options(photos, "none", tmp_path / "out", *options))
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("lloss: method 'bald': full training has no dropout")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cycles=20"], "12 \\+ 19 × 4 labels are more than the 40 images of the pool; lower"),
        (["--frozen", "--weights=none"], "--frozen: .* has no trained weights"),
        (["--pool-size=60"], "lower --pool-size"),
        (["--methods=herd"], "did you mean 'herding'"),
        (["--scenario=tail"], "write one of balanced"),
        (
            ["--methods=random,herding+lr=0.1"],
            "frozen network are not trained by lr .*choose --full",
        ),
        (["--test=0%"], "a share is between 0% and 100%"),
        (["--scenario=long-tail:5", "--initial=2", "--pool-size=20"], "teach nothing"),
    ],
)
def test_mistakes_are_refused_in_a_line_before_anything_is_written(
    tmp_path: Path,
    photos: Path,
    weights: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(_options(photos, weights, tmp_path / "out", *options))
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, last), last
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("learner", "changed", "what"),
    [
        ("--frozen", "label", "labels (of --test|in DATA)"),
        ("--frozen", "photo", "images (of --test|in DATA)"),
        ("--full", "photo", "images (of --test|in DATA)"),
        ("--frozen", "weights", "weights in the file of --weights"),
    ],
)
def test_changed_files_need_another_folder(
    tmp_path: Path,
    photos: Path,
    weights: Path,
    learner: str,
    changed: str,
    what: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pool, started, out = tmp_path / "photos", tmp_path / "weights.pt", tmp_path / "out"
    shutil.copytree(photos, pool)
    shutil.copy(weights, started)
    options = [*_options(pool, started, out, "--methods=random", learner), "--trials=1"]
    options += ["--epochs=1", "--amp=off"]
    main(options)
    before = (out / "results.jsonl").read_bytes()
    if changed == "label":
        (pool / "red" / "002.png").rename(pool / "dark" / "002.png")
    elif changed == "photo":
        shutil.copy(pool / "red" / "005.png", pool / "red" / "002.png")
    else:
        state = torch.load(started, weights_only=True)
        torch.save({name: 2 * value for name, value in state.items()}, started)
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2 and (out / "results.jsonl").read_bytes() == before
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(f"was begun with other {what} than those there now; restore them", said)


def test_a_missing_file_of_weights_leaves_nothing(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(_options(photos, tmp_path / "gone.pt", tmp_path / "out", "--methods=random"))
    assert "gone.pt: No such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_trials_can_be_added(
    tmp_path: Path, photos: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--methods=random,auto", "--scenario=balanced,redundant:4"]
    out = tmp_path / "out"
    main(_options(photos, weights, out, *options))
    two = (out / "results.jsonl").read_bytes()
    capsys.readouterr()
    main(_options(photos, weights, out, *options, "--trials=3"))
    printed, said = capsys.readouterr()
    assert "2 trials were planned; now 3" in said and "24 of 36 cycles are done" in said
    assert "planned with 2 trials; 1 more was added when results were there" in printed
    assert "(planned with 2)" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "results.jsonl").read_bytes().startswith(two)
    main(_options(photos, weights, tmp_path / "three", *options, "--trials=3"))
    assert _without_seconds(read_rows(out)) == _without_seconds(read_rows(tmp_path / "three"))
    with pytest.raises(SystemExit):
        main(_options(photos, weights, out, *options, "--trials=2"))
    assert "trials = 3, not 2" in capsys.readouterr().err


def test_another_experiment_needs_another_folder(
    frozen: Path, photos: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(_options(photos, weights, frozen, "--methods=random"))
    assert "holds a simulation with scenarios = [" in capsys.readouterr().err
