"""One set of images scored out of every kind of pool."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from lloss.serve.scoring.batch.score_pool import score_pool
from PIL import Image

from lloss import Scorer
from lloss.cli.score import command as score
from lloss.errors import ScoresError
from lloss.pools import open_pool

from .pool_files import write, write_table, write_tar


def test_the_scores_do_not_depend_on_where_images_are(
    tmp_path: Path, photos: Path, onnx_file: Path
) -> None:
    contents = [bytes(item.read()) for item in open_pool(photos)]
    write_tar(tmp_path / "s.tar", {f"{n:03d}.png": content for n, content in enumerate(contents)})
    write_table(tmp_path / "t.parquet", {"png": contents}, block=16)
    pixels = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
    np.save(tmp_path / "a.npy", np.stack(pixels))
    whole = [0.8, 0.8, 6.4, 6.4]  # 1.25 times as large it is the whole image of 8×8 pixels
    people = [{"image": str(photos / item.id), "box": whole} for item in open_pool(photos)]
    (tmp_path / "p.json").write_text(json.dumps(people))
    scorer = Scorer(onnx_file, provider="cpu")
    losses = {
        name: np.concatenate([part.loss for part in scorer.stream(str(uri))])
        for name, uri in {"folder": photos, **{p.name: p for p in tmp_path.iterdir()}}.items()
    }
    assert set(losses) == {"folder", "s.tar", "t.parquet", "a.npy", "p.json"}
    for name, loss in losses.items():
        assert np.array_equal(loss, losses["folder"]), name


def test_what_was_passed_over_is_kept_with_the_scores(
    tmp_path: Path, photos: Path, onnx_file: Path
) -> None:
    for number, item in zip(range(4), open_pool(photos)):
        write(tmp_path / f"pool/sub/{number}.png", bytes(item.read()))
    for name in ("notes.json", "sub/photo.HEIC", "sub/._0.png"):
        write(tmp_path / "pool" / name)
    pool = open_pool(tmp_path / "pool")
    with Scorer(onnx_file, provider="cpu") as scorer:
        report = score_pool(scorer, pool, tmp_path / "scores", exclude=["sub/0.png"])
        again = score_pool(scorer, pool, tmp_path / "scores", exclude=["sub/0.png"])
    assert (report.scored, again.scored) == (3, 3)
    run = json.loads((tmp_path / "scores" / "run.json").read_text())
    assert run["passed_over"] == {".heic": 1, ".json": 1, "hidden": 1}


def test_what_was_passed_over_is_said_once(tmp_path: Path, photos: Path, onnx_file: Path) -> None:
    image = bytes(next(iter(open_pool(photos))).read())
    for name, content in (("a.png", image), ("b.HEIC", b"x"), ("c.txt", b"x")):
        write(tmp_path / "pool" / name, content)
    pool = str(tmp_path / "pool")
    done = CliRunner().invoke(score, [str(onnx_file), pool, "-o", str(tmp_path / "scores")])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.output.splitlines() if "passed over" in line]
    assert line == f"{pool}: passed over 2 other files (1 .heic, 1 .txt)"


def test_a_table_replaced_under_its_name_is_not_scored_on(
    tmp_path: Path, photos: Path, onnx_file: Path
) -> None:
    images = [bytes(item.read()) for item in open_pool(photos)][:12]
    write_table(tmp_path / "t.parquet", {"png": images})
    scorer = Scorer(onnx_file, provider="cpu")
    score_pool(scorer, open_pool(tmp_path / "t.parquet"), tmp_path / "scores")
    write_table(tmp_path / "t.parquet", {"png": images[::-1]})
    with pytest.raises(ScoresError, match="its images are others than before"):
        score_pool(scorer, open_pool(tmp_path / "t.parquet"), tmp_path / "scores")
