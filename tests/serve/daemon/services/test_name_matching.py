"""The images that names in requests mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.services.name_matching import Exclusion, match_exclusion

from lloss.scores.scores_folder import ScoresFolder

from ..scores import write_scores
from .conftest import refused


@pytest.fixture
def folder(tmp_path: Path) -> ScoresFolder:
    losses = {"loss": np.arange(4, dtype=np.float32)}
    ids = ["a/x.png", "b/x.png", "b/y.png", "z.png"]
    return write_scores(tmp_path, ids, losses, skipped=[("bad.png", "broken")])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], Exclusion()),
        (["z.png", "z.png", "bad.png"], Exclusion(frozenset({"z.png", "bad.png"}))),
        (["y.png", "set/z.png"], Exclusion(frozenset({"b/y.png", "z.png"}), by_name=2)),
        (["c/y.png", "q", "b/x.png"], Exclusion(frozenset({"b/x.png"}), unknown=2)),
        (["z.png", "set/z.png"], Exclusion(frozenset({"z.png"}), by_name=1)),
    ],
)
def test_names_to_exclude(folder: ScoresFolder, names: list[str], expected: Exclusion) -> None:
    assert match_exclusion(folder, names) == expected


def test_an_ambiguous_name_to_exclude_is_refused(folder: ScoresFolder) -> None:
    message = refused(lambda: match_exclusion(folder, ["x.png"]), 422)
    assert "'x.png' may be 'a/x.png' or 'b/x.png'" in message and "handed out" in message


def test_names_of_labels(bench: Any) -> None:
    best = bench.ranked()[0]
    done = bench.labels.label("p", {"data/not scored": "cat", best: "dog"})
    assert (done.images, done.by_name) == (2, 1)
    assert bench.stored == {"not scored": "cat", best: "dog"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["not scored", "./not scored"], "'not scored' and './not scored' are labels of the image"),
        (["Not scored"], "the nearest is 'not scored': compare folder, letter case"),
        (["a/1.png", "1.png"], "the id '1.png' may be 'a/1.png' or 'b/1.png'; write which; none"),
        (["no 1", "no 2", "no 3"], "the id 'no 1' and 2 more are not in the pool 'p'; none was"),
    ],
)
def test_names_that_do_not_mean_one_image_label_none(
    bench: Any, tmp_path: Path, names: list[str], message: str
) -> None:
    (tmp_path / "list.csv").write_text("id,path\na/1.png,x\nb/1.png,x\nnot scored,x\n")
    labels = dict.fromkeys(["000.png", *names], "cat")
    assert message in refused(lambda: bench.labels.label("p", labels), 422)
    assert bench.stored == {}
