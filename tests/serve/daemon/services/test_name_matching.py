"""Images to leave out of a choice, by their ids and by other names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.name_matching import Exclusion, match_exclusion

from lloss.scores.scores_folder import ScoresFolder

from ..scores import write_scores


@pytest.fixture
def folder(tmp_path: Path) -> ScoresFolder:
    ids = ["a/x.png", "b/x.png", "b/y.png", "z.png"]
    write_scores(
        tmp_path, ids, {"loss": np.arange(4, dtype=np.float32)}, skipped=[("bad.png", "broken")]
    )
    return ScoresFolder(tmp_path).opened()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], Exclusion()),
        (["z.png", "z.png", "bad.png"], Exclusion(frozenset({"z.png", "bad.png"}))),
        (["y.png", "set/z.png"], Exclusion(frozenset({"b/y.png", "z.png"}), by_name=2)),
        (["c/y.png", "q", "b/x.png"], Exclusion(frozenset({"b/x.png"}), unknown=2)),
        (["z.png", "set/z.png"], Exclusion(frozenset({"z.png"}), by_name=1)),
    ],
)
def test_names_are_found(folder: ScoresFolder, names: list[str], found: Exclusion) -> None:
    assert match_exclusion(folder, names) == found


def test_a_name_of_two_images_is_refused(folder: ScoresFolder) -> None:
    with pytest.raises(RequestError, match="'x.png' may be 'a/x.png' or 'b/x.png'.*handed out"):
        match_exclusion(folder, ["x.png"])
