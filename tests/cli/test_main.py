"""The command line as a user meets it: real processes, one line for each mistake."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lloss.cli.main import COMMANDS, main
from lloss.scores.scores_folder import ScoresFolder, scores_table
from lloss.statistics.confidence_intervals import decimals

from ..command_line import call, lloss


def test_every_step_by_hand(
    photos: Path, tmp_path: Path, tiny_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, model, scores = tmp_path / "run", tmp_path / "model.onnx", tmp_path / "scores"
    trained = call(capsys, "train", photos, "-o", run, "--resume", *tiny_options, code=0).out
    assert "60 images of 3 classes" in trained and "holds no checkpoint to resume" in trained
    again = call(capsys, "train", photos, "-o", run, "--resume", *tiny_options, code=0).out
    assert "holds no checkpoint" not in again
    table = call(capsys, "evaluate", run, photos, code=0).out
    figures = json.loads((run / "evaluation.json").read_text())
    low, high = figures["intervals"]["head"]["ranking_accuracy"]
    assert low < figures["head"]["ranking_accuracy"] < high
    places = decimals((low, high))
    share = f"{figures['head']['ranking_accuracy']:.{places}f}"
    assert f"{share} ({low:.{places}f} to {high:.{places}f})" in table
    assert "accuracy" in table and "95 % interval" in table and "60 images)" in table
    assert "of torch" in call(capsys, "export", run, "-o", model, code=0).out
    assert "uint8 [N, 8, 8, 3]" in call(capsys, "info", model, code=0).out
    assert "60 images scored" in call(capsys, "score", model, photos, "-o", scores, code=0).err
    ids = call(capsys, "select", scores, "-k", 5, code=0).out.splitlines()
    assert len(set(ids)) == 5 and all((photos / id).is_file() for id in ids)


@pytest.fixture(scope="module")
def scores(onnx_file: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "scores"
    main(["score", str(onnx_file), str(photos), "-o", str(out)])
    return out


def test_select_writes_each_format(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = call(capsys, "select", scores, "-k", 4).out.splitlines()
    for name in ("a.txt", "a.csv", "a.parquet"):
        assert call(capsys, "select", scores, "-k", 4, "-o", tmp_path / name).code == 0
    assert (tmp_path / "a.txt").read_text().splitlines() == ids
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ids and list(rows[0]) == ["id", "score", "rank", "reason"]
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["rank"] for row in table] == [1, 2, 3, 4]
    assert [row["score"] for row in table] == [float(row["score"]) for row in rows]


def test_select_says_by_what_and_takes_the_least_sure_first(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    column = ScoresFolder(scores).column("confidence")
    for flags, expected in (([], column.min()), (["--highest"], column.max())):
        asked = ["select", scores, "-k", 1, "--by", "confidence", "--format", "csv", *flags]
        asked += [] if flags else ["--strategy", "top"]
        result = call(capsys, *asked)
        assert float(result.out.splitlines()[1].split(",")[1]) == expected
        assert f"selected by {'highest' if flags else 'lowest'} confidence" in result.err
    assert "by highest loss" in call(capsys, "select", scores, "-k", 1).err
    assert "3 of 20 selected" in call(capsys, "select", scores, "-k", 3, "--subset", 20).err
    assert "at random" in call(capsys, "select", scores, "-k", 1, "--strategy", "random").err
    both = call(capsys, "select", scores, "-k", 1, "--highest", "--lowest")
    assert both.code == 2 and "not both" in both.err
    blind = call(capsys, "select", scores, "-k", 1, "--strategy", "random", "--lowest")
    assert blind.code == 2 and not blind.out
    assert blind.err == "lloss: order 'lowest': random chooses by no scores; leave it out\n"
    unknown = call(capsys, "select", scores, "-k", 1, "--by", "prediction")
    assert unknown.code == 2 and "pass --highest or --lowest" in unknown.err and not unknown.out


def test_select_excludes_what_a_csv_names_labels_or_not(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = call(capsys, "select", scores, "-k", 3).out.splitlines()
    (tmp_path / "done.csv").write_text("id\n" + "\n".join(best[:2]) + "\n")
    result = call(capsys, "select", scores, "-k", 3, "--exclude", tmp_path / "done.csv")
    assert result.out.splitlines()[0] == best[2] and "2 excluded" in result.err


def test_select_says_which_labeled_images_it_took_into_account(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [id for part in ScoresFolder(scores).scan(["id"]) for id in part["id"].to_pylist()]
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\n" + "".join(f"{id},cat\n" for id in ids[::3]))
    herd = ["select", scores, "-k", 5, "--strategy", "herding", "--format", "csv"]
    result = call(capsys, *herd, "--exclude", labels)
    head, *rows = result.out.splitlines()
    assert head == "id,score,rank,reason" and not {row.split(",")[0] for row in rows} & set(
        ids[::3]
    )
    assert all(" % coverage; loss " in row.split(",")[3] for row in rows)
    said = "5 of 40 selected by coverage weighted by highest loss, spread by embedding, 20 excluded"
    assert f"{said}, 20 labeled images taken into account" in result.err
    assert "no labeled images taken into account" in call(capsys, *herd).err
    bare = call(capsys, "select", scores, "-k", 5, "--strategy", "coverage", "--by", "")
    assert len(bare.out.splitlines()) == 5 and "5 of 60 selected by coverage" in bare.err
    lacking = call(capsys, *herd, "--embedding", "features")
    assert lacking.code == 2 and "no column 'features'" in lacking.err and not lacking.out


def test_select_warns_of_equal_embeddings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ScoresFolder(tmp_path / "scores")
    folder.path.mkdir()
    columns = {"loss": np.arange(9, dtype=np.float32), "embedding": np.ones((9, 4), np.float32)}
    folder.write_part(0, scores_table([str(row) for row in range(9)], columns), [])
    folder.write_run({"state": "complete"})
    said = call(capsys, "select", folder.path, "-k", 3, "--strategy", "diverse").err
    assert "warning: the 9 images compared have only 1 distinct embedding: unless" in said


def test_select_passes_over_near_duplicates_and_balances(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [id for part in ScoresFolder(scores).scan(["id"]) for id in part["id"].to_pylist()]
    cameras = {id: "left" if row % 10 else "right" for row, id in enumerate(ids)}
    table = tmp_path / "images.csv"
    table.write_text("id,camera\n" + "".join(f"{id},{cameras[id]}\n" for id in ids))
    balanced = ["select", scores, "-k", 8, "--balance", "camera"]
    result = call(capsys, *balanced, "--metadata", table)
    picked = [cameras[id] for id in result.out.splitlines()]
    assert picked == ["left", "right"] * 4
    assert "balanced by camera: 4 of 54 in 'left'; 4 of 6 in 'right'" in result.err
    lacking = call(capsys, *balanced)
    assert lacking.code == 2 and "give a table that has it (--metadata TABLE)" in lacking.err
    useless = call(capsys, "select", scores, "-k", 8, "--metadata", table)
    assert useless.code == 2 and "metadata with no column to balance by" in useless.err
    predicted = call(capsys, "select", scores, "-k", 4, "--balance", "predicted")
    assert predicted.code == 0 and "balanced by predicted: " in predicted.err
    assert all(f"in '{name}'" in predicted.err for name in ("bright", "dark", "red"))
    spread = [*balanced, "--metadata", table, "--strategy", "herding", "--format", "csv"]
    reasons = [row.split(",")[3] for row in call(capsys, *spread).out.splitlines()[1:]]
    assert all(reason.startswith("in its group: adds ") for reason in reasons)
    apart = call(capsys, "select", scores, "-k", 3, "--min-distance", "1e-9").err
    assert "no near-duplicates passed over (closer than 1e-09 in embedding)" in apart
    far = call(capsys, "select", scores, "-k", 60, "--min-distance", "1.9")
    assert far.code == 2 and "at least 1.9 from labeled ones" in far.err and not far.out
    wrong = call(capsys, "select", scores, "-k", 3, "--min-distance", "3")
    assert wrong.code == 2 and "give a cosine distance, from 0 to 2" in wrong.err


def test_select_asks_for_no_more_than_there_is(
    scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = call(capsys, "select", scores, "-k", 61)
    assert result.code == 2 and "k = 61, but 60 images are left" in result.err
    assert len(call(capsys, "select", scores, "-k", 61, "--at-most").out.splitlines()) == 60


def test_info_as_json_is_the_manifest(onnx_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(call(capsys, "info", onnx_file, "--json").out)
    assert result["classes"] == ["bright", "dark", "red"]
    assert result["image"] == {
        "height": 8, "width": 8, "fit": "crop", "white": 0, "fill": 0,
        "share": 1.0, "resample": "bilinear",
    }  # fmt: skip


def test_show_prints_the_preset_and_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(call(capsys, "train", "--preset", "paper-cifar10", "--show").out)
    assert (result["epochs"], result["gradient_stop"], result["head_loss"]) == (200, 120, "margin")
    own = call(capsys, "train", "--preset", "paper-cifar10", "--lambda", 0.5, "--show")
    assert json.loads(own.out)["head_weight"] == 0.5


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    listed = call(capsys, "--help").out
    for name in COMMANDS:
        assert name in listed
        result = call(capsys, name, "--help")
        assert result.code == 0 and "Usage: lloss " + name in result.out


def mistakes(
    photos: Path, onnx_file: Path, scores: Path, tmp: Path
) -> list[tuple[str, list[object]]]:
    (tmp / "empty").mkdir()
    (tmp / "one").mkdir()
    for path in sorted((photos / "dark").iterdir()):
        (tmp / "one" / "dark").mkdir(exist_ok=True)
        shutil.copy(path, tmp / "one" / "dark" / path.name)
    (tmp / "unknown.csv").write_text("id,label\nnowhere.png,dark\nnot.png,dark\n")
    (tmp / "twice.csv").write_text("id,label\ndark/001.png,dark\ndark/001.png,red\n")
    (tmp / "header.csv").write_text("name,class\na,b\n")
    (tmp / "none.csv").write_text("id,label\n")
    np.save(tmp / "floats.npy", np.zeros((4, 8, 8, 3)))
    np.save(tmp / "bands.npy", np.zeros((4, 8, 8, 7), np.uint8))
    (tmp / "bad.npy").write_bytes(b"\x93NUMPY no")
    (tmp / "afile").touch()
    (tmp / "noise.onnx").write_bytes(b"\x00\x01\x02")
    run, out = tmp / "run", tmp / "out"
    small: list[object] = ["--model=resnet10-cifar-narrow", "--size=8", "--epochs=1"]
    return [
        ("nowhere.png': is not in the pool",
         ["train", photos, "--labels", tmp / "unknown.csv", "-o", run, *small]),
        ("is in line 2 and in line 3",
         ["train", photos, "--labels", tmp / "twice.csv", "-o", run, *small]),
        ("needs a column 'id' and 'label' (found: name, class)",
         ["train", photos, "--labels", tmp / "header.csv", "-o", run, *small]),
        ("holds no label yet",
         ["train", photos, "--labels", tmp / "none.csv", "-o", run, *small]),
        ("all 20 labels are 'dark'", ["train", tmp / "one", "-o", run, *small]),
        ("holds no image", ["train", tmp / "empty", "-o", run, *small]),
        ("no such labeled data", ["train", tmp / "nothing", "-o", run, *small]),
        ("model 'resnet19': unknown",
         ["train", photos, "-o", run, "--batch-size=8", "--model=resnet19"]),
        ("tap 'layer9'",
         ["train", photos, "-o", run, *small, "--batch-size=8", "--taps=layer9"]),
        ("lower --lr",
         ["train", photos, "-o", run, *small, "--batch-size=8", "--lr=1e30"]),
        ("lr = -1.0", ["train", photos, "-o", run, "--lr=-1"]),
        ("no such file", ["train", photos, "--labels", tmp / "gone.csv", "-o", run, *small]),
        ("train first", ["export", tmp / "empty", "-o", out / "m.onnx"]),
        ("train first", ["evaluate", tmp / "empty", photos]),
        ("no such file", ["score", tmp / "gone.onnx", photos, "-o", out]),
        ("not a readable ONNX file", ["score", tmp / "noise.onnx", photos, "-o", out]),
        ("no such pool", ["score", onnx_file, tmp / "gone", "-o", out]),
        ("the pool holds no image", ["score", onnx_file, tmp / "empty", "-o", out]),
        ("an array of float64", ["score", onnx_file, tmp / "floats.npy", "-o", out]),
        ("cannot be resized", ["score", onnx_file, tmp / "bands.npy", "-o", out]),
        ("not a readable array file", ["score", onnx_file, tmp / "bad.npy", "-o", out]),
        ("no known kind of pool", ["score", onnx_file, onnx_file, "-o", out]),
        ("no scores here", ["select", tmp / "empty", "-k", 1]),
        ("no column 'speed'", ["select", scores, "-k", 1, "--by", "speed"]),
        ("'embedding' holds no floating", ["select", scores, "-k", 1, "--by", "embedding"]),
        ("afile: cannot be written",
         ["train", photos, "-o", tmp / "afile", *small, "--batch-size=8"]),
        ("choose cpu or cuda",
         ["train", photos, "-o", run, *small, "--batch-size=8", "--device=tpu"]),
        ("pose has no labels that show nothing",
         ["train", photos, "-o", run, "--task=pose", "--empty=background"]),
        ("augment = 'ssd': segmentation has none, flip",
         ["train", photos, "--task=segmentation", "--augment=ssd", "-o", run]),
        ("size = 100: an hourglass takes multiples of 64",
         ["init", out, "--pool", photos, "--labels", tmp / "none.csv", "-k", 1, "--task=pose",
          "--size=100"]),
        ("formats = 'voc': choose one of coco",
         ["init", out, "--pool", photos, "--labels", tmp / "none.csv", "--formats=voc"]),
        ("preset 'paper-voc': is of task 'detection', not of 'pose'",
         ["train", "--preset=paper-voc", "--task=pose", "--show"]),
        ("k = 0: select at least 1", ["select", scores, "-k", 0]),
        ("give a CSV with", ["select", scores, "-k", 1, "--exclude", tmp / "header.csv"]),
        ("shard '3': give i/n", ["score", onnx_file, photos, "-o", out, "--shard", 3]),
        ("choose one of .txt", ["select", scores, "-k", 1, "-o", tmp / "ids.xlsx"]),
        ("contains no lloss.toml", ["next", tmp / "empty"]),
        ("not empty", ["demo", tmp]),
    ]  # fmt: skip


def test_each_mistake_is_one_line_and_leaves_nothing(
    photos: Path, onnx_file: Path, scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for expected, words in mistakes(photos, onnx_file, scores, tmp_path):
        result = call(capsys, *words)
        shown = f"{words}: exit {result.code}, {result.err!r}"
        assert result.code == 2, shown
        *decided, line = result.err.splitlines()
        said = ("automatic: ", "note: ", "few steps ")
        assert all(one.startswith(said) for one in decided), shown
        assert line.startswith("lloss: "), shown
        assert expected in result.err, shown
        assert not (tmp_path / "out").exists(), shown
        assert not (tmp_path / "run" / "checkpoint.pt").exists(), shown


def test_a_real_process_shows_the_same_one_line(tmp_path: Path) -> None:
    done = lloss("select", tmp_path, "-k", 1, code=2)
    assert done.stdout == "" and done.stderr.count("\n") == 1


def test_a_demo_that_ends_early_says_that_its_folder_must_go(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = f"ulimit -f 20; {sys.executable} -m lloss demo {folder}"  # too small for a checkpoint
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "checkpoint.pt: cannot be written" in done.stderr and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("lloss: the demo's `lloss next` failed; ")
    assert last.endswith(f"; remove {folder} before you run the demo again")


def test_a_head_of_ids_does_not_break_the_pipe(scores: Path) -> None:
    command = f"{sys.executable} -m lloss select {scores} -k 60 | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr
